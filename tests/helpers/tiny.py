"""Runs of slides of 64 px or less by the oracle network: every step of the engine in a fraction of
a second, with the shipped code between the slide file and the results."""

from PIL import Image

from helpers import planted
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import (
    ClassSection,
    ModelSection,
    OutputsSection,
    Pipeline,
    RunSection,
    SlideSection,
)
from quadrat.core.numerics import cpu_numerics
from quadrat.engine import run as engine_run
from quadrat.engine import steps
from quadrat.engine.batch import Batch
from quadrat.engine.executor import Serial
from quadrat.engine.fingerprint import fingerprints
from quadrat.engine.progress import Reporter
from quadrat.engine.resume import open_journal
from quadrat.engine.state import RunSettings, SlideState
from quadrat.engine.work import SlideWork, work_folder
from quadrat.models.package import Package
from quadrat.outputs.summary import PackageNote, Provenance
from quadrat.slides.identity import slide_identity

LAYOUT = planted.LAYOUTS[0]
SIDE = planted.SHARDS * LAYOUT.shard
WEIGHTS = "0" * 64
NUMERICS = cpu_numerics(1).text


class Tiny:
    """A folder with slides, a package of the oracle, and the pieces of a run."""

    def __init__(self, folder, monkeypatch, task="instance", *, side=SIDE, kind="crowded ellipses"):
        self.folder, self.task = folder, task
        self.case = planted.case_for(task, LAYOUT, kind, 7, shape=(side, side))
        self.spec = self.case.spec
        package = Package(self.case.model, self.spec, {"weights_sha256": WEIGHTS})
        (folder / "package").mkdir(parents=True)
        (folder / "package" / "card.json").write_text("{}")
        monkeypatch.setattr(steps, "_package", lambda folder, card: package)
        monkeypatch.setattr(engine_run, "run_spec", lambda p, f: (self.spec, dict(package.card)))

    @property
    def out(self):
        return self.folder / "out"

    def slide(self, name="a"):
        """A slide file of that name; all show the same."""
        path = self.folder / f"{name}.png"
        if not path.exists():
            Image.fromarray(self.case.rgb).save(path, compress_level=1)
        return SlideRef(path=str(path), name=name, mpp=self.spec.mpp)

    def pipeline(self, *, outputs=None, slide=None, **run):
        """A pipeline file's content; keywords go into its section ``run``."""
        lattice = self.spec.lattice
        return Pipeline(
            name="tiny",
            task=self.task,
            classes=tuple(ClassSection(name=n) for n in self.spec.class_names),
            model=ModelSection(
                package=str(self.folder / "package"),
                mpp=self.spec.mpp,
                core=lattice.core,
                halo=lattice.halo,
                stride=lattice.stride,
                shard=lattice.shard,
            ),
            slide=SlideSection(**{"tissue": "all"} | (slide or {})),
            run=RunSection(**{"cluster": "serial", "device": "cpu"} | run),
            outputs=OutputsSection(**{"overlay": False} | (outputs or {})),
        )

    def work(self, name="a", pipeline=None):
        """The working folder of a slide, with nothing in it."""
        ref, pipeline = self.slide(name), pipeline or self.pipeline()
        return SlideWork(
            ref=ref,
            folder=str(work_folder(self.out, name)),
            spec=self.spec,
            slide=pipeline.slide,
            task=self.task,
            identity=slide_identity(ref.path),
        )

    def prints(self, work, pipeline=None, *, weights=WEIGHTS, machine=NUMERICS):
        prints = fingerprints(work, pipeline or self.pipeline(), weights_sha256=weights)
        return prints.on(machine)

    def state(self, name="a", pipeline=None):
        """Where a slide stands, as its folder says."""
        work = self.work(name, pipeline)
        prints = self.prints(work, pipeline)
        return SlideState(work, prints, open_journal(work, prints))

    def batch(self, executor=None, pipeline=None):
        provenance = Provenance(PackageNote(WEIGHTS), self.spec.classes, "tiny", {}, 1, "cpu")
        settings = RunSettings(
            pipeline or self.pipeline(), str(self.folder / "package"), provenance
        )
        return Batch(settings, executor or Serial(), Reporter(quiet=True))

    def advanced(self, *names, until="results", pipeline=None, executor=None):
        """States of slides that were taken through their steps."""
        states = [self.state(name, pipeline) for name in names]
        self.batch(executor, pipeline).advance(states, until=until)
        return states

    def run(self, *names, pipeline=None, **options):
        """A whole run."""
        slides = [self.slide(name) for name in names]
        return engine_run.run(
            pipeline or self.pipeline(),
            slides,
            self.out,
            reporter=Reporter(quiet=True),
            executor=Serial(),
            **options,
        )
