"""Train the network with the same gradients in less memory, with PyTorch alone, as lean.json says.

    network = lean(network, json.loads(Path("lean.json").read_text()))

lean.json divides the forward pass into blocks. Of each it has the operators, the values that stay
until the backward pass (`held`), and which operators run again before each operator's backward
pass. Value 0 is a block's input, value i + 1 what its operator i returns. The calls of other blocks
run as they would without a plan (`stock`), or run again in the backward pass (`recomputed`).

The steps are for the recipe's modes and frozen parameters. In other modes the network runs without
a plan; the gradient of a parameter that the recipe freezes is refused.
"""

import importlib
from contextlib import contextmanager
from math import gcd
from types import SimpleNamespace

import torch
from torch import nn

aten = torch.ops.aten


def lean(network, plan):
    """Let a network run its training steps by a plan; in other modes it runs as it is."""
    if plan["version"] != 1:
        raise ValueError(f"lean.json has version {plan['version']}, and lean.py reads version 1")
    for program in plan["programs"]:
        module = network.get_submodule(program["module"])
        module.forward = Program(network, module, program, set(plan["evaluating"]))
    return network


class Program:
    """The forward pass of a module, block by block."""

    def __init__(self, network, module, program, evaluating):
        self.network, self.module, self.stock = network, module, module.forward
        self.evaluating = evaluating  # modules that are in evaluation mode in a training step
        self.effects = program["effects"]
        self.blocks = [(one, Region(module, one)) for one in program["blocks"]]

    def __call__(self, *args, **kwargs):
        """Run the module."""
        modules = self.network.named_modules(remove_duplicate=False)
        modes_differ = {name for name, one in modules if not one.training} != self.evaluating
        if not torch.is_grad_enabled() or modes_differ or len(args) != 1 or kwargs:
            return self.stock(*args, **kwargs)
        if torch.is_autocast_enabled(args[0].device.type):
            raise RuntimeError("a lean network does not run under autocast: leave autocast off")
        (value,) = args
        run_calls(self.effects, self.module, {})
        for block, region in self.blocks:
            if block["kind"] == "region":
                value = region(value)
            elif block["kind"] == "recomputed":
                value = recomputed(block, value, self.module)
            else:
                value = as_it_is(block, value, self.module)
        return value


# Blocks of operators --------------------------------------------------------------------------


class Op:
    """An operator: how it runs, runs again to the same bits, and is differentiated."""

    def __init__(self, root, options):
        self.root = root
        self.__dict__.update(options)

    def parameters(self):
        """Return its parameters, None where it has none."""
        return [None if name is None else tensor(self.root, name) for name in self.tensors]

    def state(self):
        """Return what else it reads. Called once in each forward pass."""

    def again(self, inputs, parameters, state, kept, in_place):
        """Compute the output once more."""
        return self.forward(inputs, parameters, state, in_place)[0]

    def sliced(self, tensors, chunk, _place):
        """Return the parts of its parameters that belong to some channels."""
        return [None if one is None else chunk.of(one) for one in tensors]

    def sliced_state(self, state, chunk):
        """Return the part of its state that belongs to some channels."""
        return state


class Region:
    """Operators that run as one autograd node."""

    def __init__(self, root, block):
        self.ops = [OPS[one["kind"]](root, one) for one in block.get("ops", ())]
        self.schedule = block.get("schedule")

    def __call__(self, value):
        """Run the operators."""
        parameters = [op.parameters() for op in self.ops]
        states = [op.state() for op in self.ops]
        flat = [one for each in parameters for one in each]
        return Node.apply(self, [len(each) for each in parameters], states, value, *flat)


class Node(torch.autograd.Function):
    """The autograd node of a region."""

    @staticmethod
    def forward(ctx, region, counts, states, value, *flat):
        """Run the operators, and save what the schedule holds."""
        parameters = grouped(flat, counts)
        output, saved = run_forward(region.ops, region.schedule, value, parameters, states)
        ctx.region, ctx.counts, ctx.states, ctx.layouts = region, counts, states, saved.layouts
        ctx.values, values = list(saved.values), list(saved.values.values())
        ctx.kept = [(index, len(kept)) for index, kept in saved.kept.items()]
        kept = [one for each in saved.kept.values() for one in each]
        ctx.save_for_backward(*values, *kept, *flat)
        return output

    @staticmethod
    def backward(ctx, grad):
        """Differentiate the operators, last one first."""
        refuse_second_derivative()
        tensors = list(ctx.saved_tensors)
        ctx.maybe_clear_saved_tensors()  # so that they can be dropped on the way
        count = len(ctx.values)
        values = dict(zip(ctx.values, tensors[:count], strict=True))
        kept = {}
        for index, length in ctx.kept:
            kept[index] = tensors[count : count + length]
            count += length
        parameters = grouped(tensors[count:], ctx.counts)
        del tensors
        saved = SimpleNamespace(values=values, kept=kept, layouts=ctx.layouts)
        del values, kept
        lasts = torch._C._autograd._get_current_graph_task_keep_graph()
        ops, schedule = ctx.region.ops, ctx.region.schedule
        of_value, of_parameters = run_backward(
            ops, schedule, grad, saved, parameters, ctx.states, owns_held=not lasts
        )
        found = of_value, *(one for each in of_parameters for one in each)
        refuse_other_gradients(ctx.needs_input_grad[3:], found)
        return (None, None, None, *found)


def run_forward(ops, schedule, value, parameters, states):
    """Run operators in order, and drop every value after its last use, unless it is held."""
    values = {0: value}
    saved = SimpleNamespace(values={}, kept={}, layouts=[layout(value)])
    for index, op in enumerate(ops):
        output, kept = op.forward(
            [values[number] for number in op.inputs],
            parameters[index],
            states[index],
            schedule["in_place"][index],
        )
        values[index + 1] = output
        saved.layouts.append(layout(output))
        if index in schedule["kept"]:
            saved.kept[index] = kept
        del output, kept
        for number in schedule["done"][index]:
            if number in schedule["held"]:
                saved.values[number] = values[number]
            del values[number]
    if len(ops) in schedule["held"]:
        saved.values[len(ops)] = values[len(ops)]
    return values[len(ops)], saved


def run_backward(
    ops,
    schedule,
    grad,
    saved,
    parameters,
    states,
    *,
    owns_grad=False,
    owns_held=False,
):
    """Differentiate operators; return the gradients of value 0 and of the parameters."""
    values, grads = saved.values, {len(ops): grad}
    ours = {len(ops)} if owns_grad else set()  # values whose gradient nobody else holds
    del grad
    of_parameters = [[None] * len(each) for each in parameters]
    for step in schedule["steps"]:
        for again in step["again"]:
            index = again["op"]
            values[index + 1] = ops[index].again(
                [values[number] for number in ops[index].inputs],
                parameters[index],
                states[index],
                saved.kept.get(index, ()),
                again["in_place"],
            )
            for number in again["done"]:
                del values[number]
        index, op = step["op"], ops[step["op"]]
        call = SimpleNamespace(
            parameters=parameters[index],
            state=states[index],
            kept=saved.kept.pop(index, ()),
            wanted_inputs=step["wanted_inputs"],
            wanted_parameters=step["wanted_parameters"],
            layouts=[saved.layouts[number] for number in op.inputs],
            overwrite=index + 1 in ours,
            spend=step["spends"] and (owns_held or op.inputs[0] not in schedule["held"]),
        )
        of_inputs, of_parameters[index] = op.backward(
            grads.pop(index + 1),
            [values[number] if number in step["reads"] else None for number in op.inputs],
            values.get(index + 1),
            call,
        )
        del call
        for number in step["done"]:
            del values[number]
        for number, one in zip(op.inputs, of_inputs, strict=True):
            if one is None:
                continue
            if number in grads:
                before = grads[number]
                total = before.add_(one) if number in ours else before + one
                grads[number] = as_stock(total, False, before)  # which overwrites the first
                del before, total
                ours.add(number)
            else:
                grads[number] = one
                if op.fresh:
                    ours.add(number)
        del of_inputs, one
    return grads.get(0), of_parameters


# Operators ------------------------------------------------------------------------------------


class Convolution(Op):
    """A convolution over images. Its state is its number of groups."""

    def state(self):
        return self.groups

    def forward(self, inputs, parameters, state, in_place):
        how = (self.stride, self.padding, self.dilation, False, (0, 0), state)
        return torch.convolution(inputs[0], *parameters, *how), ()

    def backward(self, grad, inputs, output, call):
        weight, bias = call.parameters
        mask = [
            call.wanted_inputs[0],
            call.wanted_parameters[0],
            call.wanted_parameters[1] and bias is not None,
        ]
        # Without the weight's gradient only the layout of the input matters.
        images = empty(grad, *call.layouts[0]) if inputs[0] is None else inputs[0]
        how = (self.stride, self.padding, self.dilation, False, (0, 0), call.state)
        shape = None if bias is None else bias.shape
        found = aten.convolution_backward(grad, images, weight, shape, *how, mask)
        return [found[0]], [found[1], found[2]]

    def sliced(self, tensors, chunk, place):
        return of_layer(tensors, chunk, place)

    def sliced_state(self, state, chunk):
        return 1 if state == 1 else state // chunk.parts * (chunk.stop - chunk.start)


class Linear(Op):
    """A linear layer over the last dimension."""

    def forward(self, inputs, parameters, state, in_place):
        return nn.functional.linear(inputs[0], *parameters), ()

    def backward(self, grad, inputs, output, call):
        weight, bias = call.parameters
        rows = grad.reshape(-1, grad.shape[-1])
        of_input = rows.mm(weight).view(call.layouts[0][0]) if call.wanted_inputs[0] else None
        of_weight = of_bias = None
        if call.wanted_parameters[0]:
            of_weight = rows.t().mm(inputs[0].reshape(-1, weight.shape[1]))
        if call.wanted_parameters[1] and bias is not None:
            of_bias = rows.sum(0)
        return [of_input], [of_weight, of_bias]

    def sliced(self, tensors, chunk, place):
        return of_layer(tensors, chunk, place)


class BatchNorm(Op):
    """Batch normalisation of a module. Running statistics move in the first run only."""

    def state(self):
        norm = self.root.get_submodule(self.module)
        momentum = 0.0 if norm.momentum is None else norm.momentum
        if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if norm.momentum is None:
                momentum = 1.0 / float(norm.num_batches_tracked)
        known = not norm.training or norm.track_running_stats
        return SimpleNamespace(
            mean=norm.running_mean if known else None,
            variance=norm.running_var if known else None,
            trains=norm.training or norm.running_mean is None,
            momentum=momentum,
            eps=norm.eps,
        )

    def forward(self, inputs, parameters, state, in_place):
        how = (state.trains, state.momentum, state.eps, torch.backends.cudnn.enabled)
        found = torch._batch_norm_impl_index(
            inputs[0], *parameters, state.mean, state.variance, *how
        )
        output, *kept = found[:3] if found[4] == 0 else found[:4]
        return output, tuple(kept) if state.trains else ()

    def again(self, inputs, parameters, state, kept, in_place):
        weight, bias = parameters
        if not state.trains:
            return self.forward(inputs, parameters, state, False)[0]
        if inputs[0].is_cuda:
            how = (None, None, True, 0.0, state.eps, torch.backends.cudnn.enabled)
            return torch._batch_norm_impl_index(inputs[0], weight, bias, *how)[0]
        # With a variance of one and the inverse deviation in the scale, evaluation computes the
        # same scale and shift as training did.
        mean, inverse = kept[:2]
        scale = inverse if weight is None else weight * inverse
        unit = (mean, torch.ones_like(mean), False, 0.0, 0.0)
        return torch.native_batch_norm(inputs[0], scale, bias, *unit)[0]

    def backward(self, grad, inputs, output, call):
        weight, state = call.parameters[0], call.state
        mask = [*call.wanted_inputs, *call.wanted_parameters]
        mean, inverse, *reserve = call.kept or (None, None)
        images = inputs[0]
        if images is None:  # in evaluation only its layout matters
            same = layout(grad)[1] == call.layouts[0][1]
            images = grad if same else empty(grad, *call.layouts[0])
        running = (state.mean, state.variance, mean, inverse, state.trains, state.eps)
        if reserve:
            kind = 1 if grad.is_cuda and torch.version.hip is None else 2
            found = aten._batch_norm_impl_index_backward(
                kind, images, grad, weight, *running, mask, reserve[0]
            )
        else:
            found = aten.native_batch_norm_backward(grad, images, weight, *running, mask)
        return found[:1], found[1:]

    def sliced_state(self, state, chunk):
        mean, variance = (None if s is None else chunk.of(s) for s in (state.mean, state.variance))
        return SimpleNamespace(**{**vars(state), "mean": mean, "variance": variance})


class BatchNormCall(BatchNorm):
    """Batch normalisation by a function."""

    def state(self):
        mean, variance = (
            None if name is None else tensor(self.root, name) for name in (self.mean, self.variance)
        )
        return SimpleNamespace(
            mean=mean,
            variance=variance,
            trains=self.trains,
            momentum=self.momentum,
            eps=self.eps,
        )


class LayerNorm(Op):
    """Layer normalisation over the last dimensions."""

    def forward(self, inputs, parameters, state, in_place):
        output, *kept = torch.native_layer_norm(inputs[0], self.shape, *parameters, self.eps)
        return output, tuple(kept)

    def backward(self, grad, inputs, output, call):
        images = grad if inputs[0] is None else inputs[0]
        mask = [*call.wanted_inputs, *call.wanted_parameters]
        found = aten.native_layer_norm_backward(
            grad, images, self.shape, *call.kept, *call.parameters, mask
        )
        return found[:1], found[1:]


class Activation(Op):
    """An activation function, differentiated in place where that is allowed."""

    def forward(self, inputs, parameters, state, in_place):
        run = getattr(aten, self.name + "_" * in_place)
        named = {"approximate": self.options[0]} if self.name == "gelu" else {}
        output = run(inputs[0], *(() if named else self.options), **named)
        return as_stock(output, in_place, inputs[0] if self.overwrites else None), ()

    def backward(self, grad, inputs, output, call):
        by_output = self.name in ("relu", "hardtanh", "sigmoid", "tanh") and output is not None
        values = output if by_output else inputs[0]
        target = "out" if self.name == "hardswish" else "grad_input"
        out = {target: grad} if call.overwrite else {}
        if self.name == "gelu":
            found = aten.gelu_backward(grad, values, approximate=self.options[0], **out)
        elif self.name == "relu":
            found = aten.threshold_backward(grad, values, 0, **out)
        else:
            found = getattr(aten, f"{self.name}_backward")(grad, values, *self.options, **out)
        return [as_stock(found, call.overwrite, None)], []


class Add(Op):
    """Sum of two values."""

    def forward(self, inputs, parameters, state, in_place):
        total = inputs[0].add_(inputs[1]) if in_place else inputs[0] + inputs[1]
        return as_stock(total, in_place, None if self.target is None else inputs[self.target]), ()

    def backward(self, grad, inputs, output, call):
        return [grad if each else None for each in call.wanted_inputs], []


class Multiply(Op):
    """Product of two values, of which the second may be broadcast."""

    def forward(self, inputs, parameters, state, in_place):
        product = inputs[0].mul_(inputs[1]) if in_place else inputs[0] * inputs[1]
        return as_stock(product, in_place, inputs[0] if self.overwrites else None), ()

    def backward(self, grad, inputs, output, call):
        grads = [None, None]
        for place, each in enumerate(call.wanted_inputs):
            if each:
                product = grad * inputs[1 - place]
                grads[place] = product.sum_to_size(call.layouts[place][0])
        return grads, []


class Scale(Op):
    """Product of a value and a parameter that may be broadcast."""

    def forward(self, inputs, parameters, state, in_place):
        product = inputs[0].mul_(parameters[0]) if in_place else inputs[0] * parameters[0]
        return as_stock(product, in_place, inputs[0] if self.overwrites else None), ()

    def backward(self, grad, inputs, output, call):
        factor, of_input, of_factor = call.parameters[0], None, None
        if call.wanted_parameters[0]:
            of_factor = (grad * inputs[0]).sum_to_size(factor.shape)
        if call.wanted_inputs[0]:
            of_input = (grad * factor).sum_to_size(call.layouts[0][0])
        return [of_input], [of_factor]


class GlobalPool(Op):
    """Mean over the last two dimensions."""

    def forward(self, inputs, parameters, state, in_place):
        if self.adaptive:
            return nn.functional.adaptive_avg_pool2d(inputs[0], 1), ()
        return inputs[0].mean((-2, -1), keepdim=self.keeps), ()

    def backward(self, grad, inputs, output, call):
        shape = call.layouts[0][0]
        each = grad if self.keeps else grad.unsqueeze(-1).unsqueeze(-1)
        return [each.expand(shape) / (shape[-1] * shape[-2])], []


class MaxPool(Op):
    """Maximum of each window. Keeps one byte per window, its place within the window."""

    def how(self):
        return self.kernel, self.stride, self.padding, self.dilation, self.ceil

    def forward(self, inputs, parameters, state, in_place):
        output, flat = aten.max_pool2d_with_indices(inputs[0], *self.how())
        width = inputs[0].shape[-1]
        columns = flat.remainder(width).sub_(self.origins(flat, 1))
        columns.div_(self.dilation[1], rounding_mode="floor")
        rows = flat.div_(width, rounding_mode="floor").sub_(self.origins(flat, 0))
        rows.div_(self.dilation[0], rounding_mode="floor")
        return output, (rows.mul_(self.kernel[1]).add_(columns).to(torch.uint8),)

    def again(self, inputs, parameters, state, kept, in_place):
        return aten.max_pool2d_with_indices(inputs[0], *self.how())[0]

    def origins(self, indices, side):
        """Return the first row (side 0) or column (side 1) of every window."""
        starts = torch.arange(indices.shape[-2 + side], device=indices.device)
        starts = starts.mul_(self.stride[side]).sub_(self.padding[side])
        return starts.view(-1, 1) if side == 0 else starts

    def backward(self, grad, inputs, output, call):
        flat = call.kept[0].to(torch.int64)
        columns = flat.remainder(self.kernel[1]).mul_(self.dilation[1])
        columns.add_(self.origins(flat, 1))
        flat.div_(self.kernel[1], rounding_mode="floor").mul_(self.dilation[0])
        flat.add_(self.origins(flat, 0)).mul_(call.layouts[0][0][-1]).add_(columns)
        del columns
        target = empty(grad, *call.layouts[0])  # the input matters for its layout alone
        work = aten.max_pool2d_with_indices_backward.grad_input
        return [work(grad, target, *self.how(), flat, grad_input=target)], []


class Flatten(Op):
    """All dimensions from one to another become one."""

    def forward(self, inputs, parameters, state, in_place):
        return inputs[0].flatten(self.start, self.end), ()

    def backward(self, grad, inputs, output, call):
        return [grad.reshape(call.layouts[0][0])], []


class Permute(Op):
    """Dimensions in another order."""

    def forward(self, inputs, parameters, state, in_place):
        return inputs[0].permute(self.order), ()

    def backward(self, grad, inputs, output, call):
        back = [self.order.index(place) for place in range(len(self.order))]
        return [grad.permute(back)], []


class Identity(Op):
    """The value itself."""

    def forward(self, inputs, parameters, state, in_place):
        return inputs[0], ()

    def backward(self, grad, inputs, output, call):
        return [grad], []


class Opaque(Op):
    """A call that is differentiated by running it again, with the same random numbers."""

    def run(self, value):
        results = {"value": value}
        run_calls([self.call], self.root, results)
        return results["output"]

    def forward(self, inputs, parameters, state, in_place):
        kept = random_state(inputs[0].device) if self.random else ()
        return self.run(inputs[0]), kept

    def again(self, inputs, parameters, state, kept, in_place):
        with drawn_from(kept, inputs[0].device):
            return self.run(inputs[0])

    def backward(self, grad, inputs, output, call):
        value = inputs[0].detach().requires_grad_()
        with torch.enable_grad(), drawn_from(call.kept, value.device):
            result = self.run(value)
        return list(torch.autograd.grad(result, value, grad)), []


class Slice:
    """The channels of one chunk: `start` to `stop` of `parts` equal parts."""

    def __init__(self, start, stop, parts):
        self.start, self.stop, self.parts = start, stop, parts

    def of(self, whole, dim=0):
        """Return a view of the chunk's channels."""
        span = whole.shape[dim] // self.parts
        return whole.narrow(dim, self.start * span, (self.stop - self.start) * span)


def of_layer(tensors, chunk, place):
    """Return the parts of weight and bias; the last layer of a chain reads the channels."""
    weight, bias = tensors
    if place == "last":
        return [None if weight is None else chunk.of(weight, 1), bias if not chunk.start else None]
    return [None if one is None else chunk.of(one) for one in tensors]


class Chunked(Op):
    """A chain of operators, computed for a few channels at a time.

    `opened`: the input is divided, too; otherwise the first operator makes the channels of each
    chunk. `closed`: the last operator sums over the channels. `first` and `back` are the schedules.
    """

    def __init__(self, root, options):
        super().__init__(root, options)
        self.chain = [OPS[one["kind"]](root, one) for one in options["ops"]]

    def state(self):
        return SimpleNamespace(states=[op.state() for op in self.chain], runs=[])

    def forward(self, inputs, parameters, state, in_place):
        own, output, kept = self.by_op(parameters), None, []
        state.runs.clear()
        for chunk in self.chunks_of(own, layout(inputs[0])):
            entry = part_of(inputs[0], chunk) if self.opened else inputs[0]
            states = self.states_of(state, chunk)
            part, saved = run_forward(
                self.chain, self.first, entry, self.parts_of(own, chunk), states
            )
            del entry
            state.runs.append((saved.layouts, [(i, len(each)) for i, each in saved.kept.items()]))
            kept.extend(one for each in saved.kept.values() for one in each)
            del saved
            output = self.joined(output, part, chunk)
            del part
        return output, tuple(kept)

    def again(self, inputs, parameters, state, kept, in_place):
        own, output = self.by_op(parameters), None
        chunks = self.chunks_of(own, layout(inputs[0]))
        for chunk, saved in zip(chunks, runs_of(state, kept), strict=True):
            part = part_of(inputs[0], chunk) if self.opened else inputs[0]
            parts, states = self.parts_of(own, chunk), self.states_of(state, chunk)
            for index, op in enumerate(self.chain):
                small = saved.kept.get(index, ())
                part = op.again([part], parts[index], states[index], small, False)
            output = self.joined(output, part, chunk)
        return output

    def backward(self, grad, inputs, output, call):
        own, wants = self.by_op(call.parameters), self.by_op(call.wanted_parameters)
        full = [
            [
                torch.empty_like(p) if p is not None and w else None
                for p, w in zip(ps, ws, strict=True)
            ]
            for ps, ws in zip(own, wants, strict=True)
        ]
        of_input = None
        if self.opened and call.wanted_inputs[0]:
            spends = call.spend and inputs[0] is not None
            of_input = inputs[0] if spends else empty(grad, *call.layouts[0])
        last = call.layouts[0][1]
        chunks = self.chunks_of(own, call.layouts[0])
        for chunk, saved in zip(chunks, runs_of(call.state, call.kept), strict=True):
            if inputs[0] is not None:
                saved.values[0] = part_of(inputs[0], chunk) if self.opened else inputs[0]
            part, of_parameters = run_backward(
                self.chain,
                self.back,
                grad if self.closed else part_of(grad, chunk),
                saved,
                self.parts_of(own, chunk),
                self.states_of(call.state, chunk),
                owns_grad=not self.closed,
            )
            for targets, grads in zip(self.parts_of(full, chunk), of_parameters, strict=True):
                for target, one in zip(targets, grads, strict=True):
                    if target is not None and one is not None:
                        target.copy_(one)
            del of_parameters
            if self.opened and part is not None and of_input is not None:
                chunk.of(of_input, 1).copy_(part)
                last = layout(part)[1]
            elif part is not None and not self.opened:
                of_input = part if of_input is None else of_input.add_(part)
            del part
        if self.opened and of_input is not None:
            restride(of_input, last)  # no sooner: it may be the input, too
        return [of_input], [one for each in full for one in each]

    def by_op(self, flat):
        """Divide a sequence with an entry per parameter among the operators."""
        return grouped(flat, [len(op.tensors) for op in self.chain])

    def chunks_of(self, parameters, entry):
        """Return the chunks. Kernels like 16 channels together; fewer than 4 take another.

        Where channels lie beside each other, slices of fewer would be rounded otherwise.
        """
        shape, last = entry
        channels = shape[1] if self.opened else parameters[0][0].shape[0]
        parts = gcd(channels, *(op.groups for op in self.chain if getattr(op, "groups", 1) > 1))
        step = min(parts, max(4, -(-parts // self.chunks)))
        pools = any(op.kind == "MaxPool" for op in self.chain)  # perhaps to one pixel
        beside = self.opened and (last or pools or shape[2:].numel() == 1)
        step = -(-step // 16) * 16 if beside or parts >= 32 else step
        sizes = [min(step, parts - start) for start in range(0, parts, step)]
        if len(sizes) > 1 and sizes[-1] < 4:
            sizes[-2:] = [sizes[-2] + sizes[-1]]
        starts = [sum(sizes[:place]) for place in range(len(sizes))]
        return [Slice(s, s + size, parts) for s, size in zip(starts, sizes, strict=True)]

    def parts_of(self, tensors, chunk):
        """Return the parts of all parameters that belong to a chunk."""
        places = ["inner"] * len(self.chain)
        if self.closed:
            places[-1] = "last"
        found = zip(self.chain, tensors, places, strict=True)
        return [op.sliced(each, chunk, place) for op, each, place in found]

    def states_of(self, state, chunk):
        """Return the parts of all states that belong to a chunk."""
        found = zip(self.chain, state.states, strict=True)
        return [op.sliced_state(one, chunk) for op, one in found]

    def joined(self, output, part, chunk):
        """Add a chunk's part to the output, or put it in its place."""
        if self.closed:
            return part if output is None else output.add_(part)
        if output is None:
            channels = part.shape[1] // (chunk.stop - chunk.start) * chunk.parts
            shape = (part.shape[0], channels, *part.shape[2:])
            output = empty(part, shape, layout(part)[1])
        chunk.of(output, 1).copy_(part)
        return output


def layout(one):
    """Return a tensor's shape, and whether operators read channels-last off its strides."""
    least, last = 0, one.ndim == 4
    for place in (1, 3, 2, 0) if last else ():
        size, stride = one.shape[place], one.stride(place)
        last &= size > 0 and stride >= least and not (place == 0 and least == one.stride(1))
        least = stride * max(size, 1)
    return one.shape, last and one.stride(1) > 0


def empty(like, shape, last):
    """Return a tensor of a layout."""
    kind = torch.channels_last if last else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=kind)


def as_stock(value, in_place, overwritten):
    """Give a result the strides that it has without a plan, where there is a choice.

    Images of one pixel or channel are contiguous and channels-last at once. New results are laid
    out contiguously there, others as what they overwrite.
    """
    if overwritten is None:
        return restride(value, False) if in_place else value
    if value.is_contiguous() and overwritten.is_contiguous():
        value.as_strided_(value.shape, overwritten.stride())
    return value


def restride(value, last):
    """Give a tensor the strides of a memory format, if it may have them as it is."""
    kind = torch.channels_last if last else torch.contiguous_format
    if value.is_contiguous(memory_format=kind):
        step, strides, order = 1, list(value.shape), range(value.ndim)
        for place in (1, 3, 2, 0) if last else reversed(order):
            strides[place], step = step, step * max(value.shape[place], 1)
        value.as_strided_(value.shape, strides)
    return value


def part_of(whole, chunk):
    """Return a copy of a chunk, laid out like the whole: kernels are fast on nothing else."""
    kind = torch.channels_last if layout(whole)[1] else torch.contiguous_format
    return chunk.of(whole, 1).clone(memory_format=kind)


def runs_of(state, kept):
    """Yield what each chunk's forward run kept."""
    start = 0
    for layouts, counts in state.runs:
        own = {}
        for index, count in counts:
            own[index] = kept[start : start + count]
            start += count
        yield SimpleNamespace(values={}, kept=own, layouts=list(layouts))


KINDS = (Activation, Add, BatchNorm, BatchNormCall, Chunked, Convolution, Flatten, GlobalPool,
         Identity, LayerNorm, Linear, MaxPool, Multiply, Opaque, Permute, Scale)  # fmt: skip
OPS = {kind.__name__: kind for kind in KINDS}


# Calls that PyTorch runs ----------------------------------------------------------------------


def run_calls(calls, root, results):
    """Run calls in order, and drop every result after its last use."""
    for call in calls:
        args = filled(call["args"], results)
        named = {name: filled(one, results) for name, one in call["kwargs"].items()}
        target = call["target"]
        if call["kind"] == "module":
            result = root.get_submodule(target)(*args, **named)
        elif call["kind"] == "tensor":
            result = tensor(root, target)
        elif call["kind"] == "method":
            result = getattr(args[0], target)(*args[1:], **named)
        else:
            result = function(target)(*args, **named)
        results[call["name"]] = result
        del args, named, result
        for name in call["done"]:
            results.pop(name, None)


def as_it_is(block, value, root):
    """Run the calls of a block."""
    results = {block["input"]: value}
    del value
    run_calls(block["calls"], root, results)
    return filled(block["output"], results)


def filled(value, results):
    """Put results in place of references."""
    if isinstance(value, list):
        return [filled(one, results) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "result":
        return results[inner]
    if kind == "torch":  # a type or a memory format
        return getattr(torch, inner)
    if kind == "named tuple":
        return function(inner[0])(*filled(inner[1], results))
    if kind == "dict":
        return {key: filled(one, results) for key, one in inner}
    return {"tuple": tuple, "slice": lambda ends: slice(*ends)}[kind](filled(inner, results))


def function(name):
    """Return a function by its name, `module:name`."""
    module, _, own = name.partition(":")
    found = importlib.import_module(module)
    for part in own.split("."):
        found = getattr(found, part)
    return found


def tensor(root, name):
    """Return a parameter or buffer."""
    owner, _, own = name.rpartition(".")
    return getattr(root.get_submodule(owner), own)


def grouped(flat, counts):
    """Divide a sequence into tuples of the given lengths."""
    groups, start = [], 0
    for count in counts:
        groups.append(tuple(flat[start : start + count]))
        start += count
    return groups


def recomputed(block, value, root):
    """Run calls and hold their input, their parameters and the random state alone."""
    found = {}
    for call in block["calls"]:
        if call["kind"] == "module":
            found.update((id(p), p) for p in root.get_submodule(call["target"]).parameters())
        elif call["kind"] == "tensor":
            one = tensor(root, call["target"])
            found[id(one)] = one
    trained = [one for one in found.values() if one.requires_grad]
    return Recomputed.apply(block, root, value, *trained)


class Recomputed(torch.autograd.Function):
    """The autograd node of calls that run again."""

    @staticmethod
    def forward(ctx, block, root, value, *trained):
        """Run the calls."""
        ctx.block, ctx.root, ctx.count = block, root, len(trained)
        ctx.save_for_backward(value, *trained, *random_state(value.device))
        return as_it_is(block, value, root)

    @staticmethod
    def backward(ctx, grad):
        """Run the calls again and let autograd differentiate them."""
        refuse_second_derivative()
        value, *rest = ctx.saved_tensors
        trained, state = rest[: ctx.count], rest[ctx.count :]
        needs, block = list(ctx.needs_input_grad[2:]), ctx.block
        entry = value.detach().requires_grad_(needs[0])
        modules = [c["target"] for c in block["calls"] if c["kind"] == "module"]
        norms = [
            norm
            for name in modules
            for norm in ctx.root.get_submodule(name).modules()
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.track_running_stats
        ]
        with statistics_kept(norms), drawn_from(state, value.device), torch.enable_grad():
            output = as_it_is(block, entry, ctx.root)
        wanted = [one for one, need in zip((entry, *trained), needs, strict=True) if need]
        found = iter(torch.autograd.grad(output, wanted, grad, allow_unused=True))
        return (None, None, *(next(found) if need else None for need in needs))


@contextmanager
def statistics_kept(norms):
    """Leave running statistics as they are: the first run has moved them."""
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def random_state(device):
    """Return the states of the random generators: the CPU's and, on CUDA, the device's."""
    on_device = (torch.cuda.get_rng_state(device),) if device.type == "cuda" else ()
    return (torch.get_rng_state(), *on_device)


@contextmanager
def drawn_from(state, device):
    """Draw random numbers from a state within this context; without a state, as usual."""
    before = random_state(device) if state else ()
    set_random_state(state, device)
    try:
        yield
    finally:
        set_random_state(before, device)


def set_random_state(state, device):
    """Set the random generators to a state of `random_state`."""
    if state:
        torch.set_rng_state(state[0])
    for on_device in state[1:]:
        torch.cuda.set_rng_state(on_device, device)


def refuse_other_gradients(needs, found):
    """Refuse to leave out a gradient that is needed, but that the steps don't compute."""
    if any(need and one is None for need, one in zip(needs, found, strict=True)):
        raise RuntimeError(
            "lean.json has no step for a gradient that is needed: set requires_grad of the "
            "parameters named under 'trained' in recipe.json alone"
        )


def refuse_second_derivative():
    """Refuse a backward pass that is itself to be differentiated."""
    if torch.is_grad_enabled():
        raise RuntimeError("a lean network can't be differentiated twice: leave create_graph off")
