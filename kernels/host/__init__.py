"""The kernels without a GPU: the same .cu files, compiled by g++ under sanitizers and run in a process of their own."""

from kernels.host.host_device import HostDevice, SiteCount

__all__ = ["HostDevice", "SiteCount"]
