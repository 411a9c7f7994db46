"""OpenCV's own DNN module as a backend for EfficientNet-Lite0."""

import cv2
import numpy as np

from backends.base import Attestation, Backend, DeviceNotFound, Runner, Slot, TensorSpec


class OpenCVDnn(Backend):
    name = "opencv-dnn"
    inputs = (TensorSpec("images", "float32", (None, 3, 224, 224), "NCHW"),)
    outputs = (TensorSpec("logits", "float32", (None, 1000), "NC"),)

    @classmethod
    def load(cls, model, device, lanes, threads, options=None):
        if device != "cpu":
            raise DeviceNotFound(f"opencv-dnn runs on cpu, got '{device}'")
        backend = cls()
        backend.path = str(model.path)
        return backend

    @classmethod
    def version(cls):
        return cv2.__version__

    def runner(self, place="host"):
        return DnnRunner(cv2.dnn.readNetFromONNX(self.path))

    def attest(self):
        return Attestation(device="cpu", device_name="", provider="OpenCV DNN", precision="fp32")


class DnnRunner(Runner):
    def __init__(self, net):
        self.net = net

    def slot(self, n):
        return Slot(n, {"images": np.empty((n, 3, 224, 224), np.float32)})

    def infer(self, slot):
        self.net.setInput(slot.buffers["images"])
        return {"logits": self.net.forward()}
