"""U-Net, U-Net++ and DeepLabV3+: its configuration and its forward."""
