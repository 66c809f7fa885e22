"""ResNet-50 (He and others, 2015, with the stride in the 3×3 convolutions) with random weights."""

import numpy as np
import repository
from onnx import helper, numpy_helper
from repository import tensor

# Blocks, and channels inside a block, of each of the four stages; a block gives out four times as many.
STAGES = [(3, 64), (4, 128), (6, 256), (3, 512)]
WIDENING = 4
CLASSES = 1000


def write(directory):
    """Writes the model with random weights, the same every time."""
    layers = Layers()
    value = layers.convolution("image", 3, 64, kernel=7, stride=2)
    value = layers.add("MaxPool", [value], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, (blocks, width) in enumerate(STAGES):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            value = layers.bottleneck(value, channels, width, stride)
            channels = width * WIDENING
    value = layers.add("GlobalAveragePool", [value])
    value = layers.add("Flatten", [value], axis=1)
    layers.classify(value, channels)

    made = repository.model(
        "resnet50",
        layers.nodes,
        [tensor("image", "FLOAT", ["batch", 3, 224, 224])],
        [tensor("scores", "FLOAT", ["batch", CLASSES])],
        layers.weights,
    )
    config = repository.config(
        "resnet50",
        [("image", "TYPE_FP32", [3, 224, 224])],
        [("scores", "TYPE_FP32", [CLASSES])],
        max_batch_size=32,
        more="dynamic_batching {}",
    )
    repository.write(directory, {1: made}, config)


class Layers:
    """A graph under construction; each method answers the name of the value that it adds."""

    def __init__(self):
        self.nodes, self.weights = [], []
        self.random = np.random.default_rng(0)

    def add(self, operator, inputs, output=None, **attributes):
        output = output or f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def weight(self, array):
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def convolution(self, value, channels, out, kernel, stride=1, gain=1.0, relu=True):
        """A convolution whose batch normalisation is folded into its weights, as exporters leave it."""
        spread = gain * np.sqrt(2 / (channels * kernel * kernel))
        weight = self.random.standard_normal((out, channels, kernel, kernel), np.float32) * spread
        value = self.add(
            "Conv",
            [value, self.weight(weight), self.weight(np.zeros(out))],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
        )
        return self.add("Relu", [value]) if relu else value

    def bottleneck(self, value, channels, width, stride):
        """1×1, 3×3 and 1×1 convolutions around which the value is also passed straight on."""
        inner = self.convolution(value, channels, width, kernel=1)
        inner = self.convolution(inner, width, width, kernel=3, stride=stride)
        # Small, or values would grow from block to block.
        inner = self.convolution(inner, width, width * WIDENING, kernel=1, gain=0.2, relu=False)
        if channels != width * WIDENING:
            value = self.convolution(value, channels, width * WIDENING, kernel=1, stride=stride, gain=0.7, relu=False)
        return self.add("Relu", [self.add("Add", [inner, value])])

    def classify(self, value, channels):
        weight = self.random.standard_normal((channels, CLASSES), np.float32) / np.sqrt(channels)
        self.add("Gemm", [value, self.weight(weight), self.weight(np.zeros(CLASSES))], output="scores")
