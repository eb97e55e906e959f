"""The kinds of model, one file each; :func:`quadrat.models.task.get_task` finds them by the
file's name.
"""
