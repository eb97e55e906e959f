// Not run yet: Nextflow does not come from a package index of Python, so no test of quadrat starts it.
//
// One slide a task. Nextflow gives each try a new folder, so what a stopped try has done is kept in params.quadrat_state,
// which all nodes must see; exit code 75 means "run again", and the next try goes on there.
process QUADRAT_RUN {
    tag "$meta.id"
    label 'process_high'

    container params.quadrat_container ?: 'quadrat:latest'

    errorStrategy { task.exitStatus in [75, 104] + (130..145) ? 'retry' : 'finish' }
    maxRetries 5

    input:
    tuple val(meta), path(slide)
    val pipeline

    output:
    tuple val(meta), path("${prefix}")             , emit: results
    tuple val(meta), path("${prefix}/summary.json"), emit: summary
    path "versions.yml"                            , emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    quadrat run ${pipeline} ${slide} \\
        --out ${params.quadrat_state}/${prefix} \\
        --cluster local --workers ${task.cpus} --quiet ${args}
    cp -r ${params.quadrat_state}/${prefix}/results/${slide.baseName} ${prefix}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        quadrat: \$(quadrat --version | sed 's/quadrat //')
    END_VERSIONS
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir ${prefix}
    touch ${prefix}/summary.json

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        quadrat: \$(quadrat --version | sed 's/quadrat //')
    END_VERSIONS
    """
}
