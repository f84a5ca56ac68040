"""How many images and steps a list of classes takes, where the settings leave it to us.

Both grow as a power of the number of classes: classes share most of what a student learns. So a
class of a long list costs less than one of a short list, and no list more than in proportion.
"""

from dataclasses import replace

from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.errors import ConfigError

FEW_CLASSES = 7  # A list as short takes as much as one of so many
NUM_IMAGES, NUM_STEPS = 640, 100  # Of so many (ours; examples/measurements)
GROWTH = 3 / 4  # Exponent: 20 classes take 2.2 times as much as 7, 1,000 take 41 times (ours)
MIN_IMAGES = 32
FROM_RANDOM = 3  # Times as many images and steps of a student that knows nothing (ours)


def sized(config: PipelineConfig, num_classes: int) -> PipelineConfig:
    """Settle the numbers of images and steps for so many classes; those that are given stay.

    Raises:
        ConfigError: fewer images are asked for than some can be held out of.
    """
    if 0 < config.synthesis.num_images < MIN_IMAGES:
        raise ConfigError(f"must be 0, or at least {MIN_IMAGES}", where="synthesis.num_images")
    times = config.effort * (max(num_classes, FEW_CLASSES) / FEW_CLASSES) ** GROWTH
    if config.distillation.student_init == "random":
        times *= FROM_RANDOM
    synthesis, distillation = config.synthesis, config.distillation
    num_images = synthesis.num_images or max(MIN_IMAGES, round(times * NUM_IMAGES))
    num_steps = distillation.num_steps or max(1, round(times * NUM_STEPS))
    return replace(
        config,
        synthesis=replace(synthesis, num_images=num_images),
        distillation=replace(distillation, num_steps=num_steps),
    )
