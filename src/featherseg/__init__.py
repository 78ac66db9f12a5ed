"""featherseg: parameter-efficient tuning of vision-language segmentation models, reproducibly."""

__version__ = "0.1.0"
