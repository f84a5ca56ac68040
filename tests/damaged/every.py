"""Every target by its name."""

from tests.damaged import targets

TARGETS = {target.name: target for target in targets.LIGHT}
