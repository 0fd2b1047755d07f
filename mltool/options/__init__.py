"""The options of all commands, each written once: one frozen dataclass for every group of them.

A command of `mltool.cli` lists the groups that it has; a command of `mltool.commands` takes the
same groups. `group.py` says what may stand beside an option, `rules.py` what holds across groups.
"""
