"""Classes of a bundle's network.py that are the same for every network, as text."""

PART = '''
class Part(nn.Module):
    """A module with the modules, parameters and buffers that it is given."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            else:
                setattr(self, name, part)
'''

ADAPTED = '''
class Adapted(nn.Module):
    """A linear layer with a low-rank adapter (LoRA) beside it."""

    def __init__(self, base_layer, *, rank, scale):
        super().__init__()
        self.base_layer = base_layer
        inputs, outputs = base_layer.in_features, base_layer.out_features
        self.lora_A = nn.ModuleDict({"default": nn.Linear(inputs, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, outputs, bias=False)})
        self.scale = scale
        nn.init.zeros_(self.lora_B["default"].weight)

    def forward(self, inputs):
        # One expression, so that each result is freed as soon as the next one is there.
        down, up = self.lora_A["default"], self.lora_B["default"]
        return self.base_layer(inputs) + up(down(inputs)) * self.scale

    def merged(self):
        """Return the layer without the adapter, which its weights then hold."""
        with torch.no_grad():
            change = self.lora_B["default"].weight @ self.lora_A["default"].weight
            self.base_layer.weight += change * self.scale
        return self.base_layer


def merge(network):
    """Put every adapter into its layer's weights, for a network that is not trained further."""
    for name, module in list(network.named_modules()):
        if isinstance(module, Adapted):
            owner, _, key = name.rpartition(".")
            network.get_submodule(owner).register_module(key, module.merged())
    return network
'''
