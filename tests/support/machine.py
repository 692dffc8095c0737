"""What tests need of the machine they run on."""

import pytest
import torch

AVX2 = torch.backends.cpu.get_cpu_capability() == "AVX2"

needs_avx2 = pytest.mark.skipif(not AVX2, reason="workspace rules are for oneDNN on AVX2")

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
