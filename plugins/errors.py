"""What backends, preprocessors and kernels raise alike."""


class DeviceNotFound(Exception):
    """The device asked for is not on this machine, or what was to use it cannot."""
