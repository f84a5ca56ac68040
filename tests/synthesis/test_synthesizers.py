from typing import get_args

from dfkd_edge.config.settings import SynthesisConfig, SynthesisMethod
from dfkd_edge.synthesis.synthesizers import SYNTHESIZERS


def test_the_settings_name_the_synthesizers_of_the_table() -> None:
    assert get_args(SynthesisMethod) == tuple(SYNTHESIZERS)
    assert next(iter(SYNTHESIZERS)) == SynthesisConfig().method  # as the help of --synthesis says
