"""BibTeX entries of the works that a method paragraph cites.

Each entry was checked against the record of its publisher or the citation that the project itself
asks for: the paper behind peak-greedy against DiVA (Mälardalen University), Optuna, Torch-Pruning,
timm, transformers and torchvision against the READMEs of their packages, PyTorch against its
CITATION.cff, hypervolume and attainment function against moocore's bibliography.
"""

import re
from collections.abc import Iterable
from importlib.metadata import version

_PYTORCH_AUTHORS = (
    "Ansel, Jason and Yang, Edward and He, Horace and Gimelshein, Natalia and Jain, Animesh and "
    "Voznesensky, Michael and Bao, Bin and Bell, Peter and Berard, David and Burovski, Evgeni and "
    "Chauhan, Geeta and Chourdia, Anjali and Constable, Will and Desmaison, Alban and "
    "DeVito, Zachary and Ellison, Elias and Feng, Will and Gong, Jiong and Gschwind, Michael and "
    "Hirsh, Brian and Huang, Sherlock and Kalambarkar, Kshiteej and Kirsch, Laurent and "
    "Lazos, Michael and Lezcano, Mario and Liang, Yanbo and Liang, Jason and Lu, Yinghai and "
    "Luk, CK and Maher, Bert and Pan, Yunjie and Puhrsch, Christian and Reso, Matthias and "
    "Saroufim, Mark and Siraichi, Marcos Yukio and Suk, Helen and Suo, Michael and "
    "Tillet, Phil and Wang, Eikan and Wang, Xiaodong and Wen, William and Zhang, Shunting and "
    "Zhao, Xu and Zhou, Keren and Zou, Richard and Mathews, Ajit and Chanan, Gregory and "
    "Wu, Peng and Chintala, Soumith"
)
_TRANSFORMERS_AUTHORS = (
    "Wolf, Thomas and Debut, Lysandre and Sanh, Victor and Chaumond, Julien and "
    "Delangue, Clement and Moi, Anthony and Cistac, Pierric and Rault, Tim and Louf, R{\\'e}mi and "
    "Funtowicz, Morgan and Davison, Joe and Shleifer, Sam and von Platen, Patrick and "
    "Ma, Clara and Jernite, Yacine and Plu, Julien and Xu, Canwen and Le Scao, Teven and "
    "Gugger, Sylvain and Drame, Mariama and Lhoest, Quentin and Rush, Alexander M."
)
# Kind of the entry and its fields, by key.
_WORKS: dict[str, tuple[str, dict[str, str]]] = {
    "yoosefi2023activation": (
        "inproceedings",
        {
            # DiVA lists four authors' institutions; the three that lead the list are known.
            "author": "Yoosefi and Mousavi and Daneshtalab and others",
            "title": "Efficient On-device Transfer Learning using Activation Memory Reduction",
            "booktitle": "International Conference on Fog and Mobile Edge Computing ({FMEC})",
            "publisher": "IEEE",
            "year": "2023",
            "pages": "210--215",
            "doi": "10.1109/FMEC59375.2023.10306182",
        },
    ),
    "akiba2019optuna": (
        "inproceedings",
        {
            "author": "Akiba, Takuya and Sano, Shotaro and Yanase, Toshihiko and Ohta, Takeru and "
            "Koyama, Masanori",
            "title": "{Optuna}: A Next-Generation Hyperparameter Optimization Framework",
            "booktitle": "The 25th {ACM SIGKDD} International Conference on Knowledge Discovery "
            r"\& Data Mining",
            "year": "2019",
            "pages": "2623--2631",
        },
    ),
    "ansel2024pytorch": (
        "inproceedings",
        {
            "author": _PYTORCH_AUTHORS,
            "title": "{PyTorch} 2: Faster Machine Learning Through Dynamic {Python} Bytecode "
            "Transformation and Graph Compilation",
            "booktitle": "29th {ACM} International Conference on Architectural Support for "
            "Programming Languages and Operating Systems, Volume 2 ({ASPLOS} '24)",
            "publisher": "ACM",
            "year": "2024",
            "doi": "10.1145/3620665.3640366",
        },
    ),
    "torchvision2016": (
        "misc",
        {
            "author": "{TorchVision maintainers and contributors}",
            "title": "{TorchVision}: {PyTorch}'s Computer Vision library",
            "year": "2016",
            "howpublished": r"\url{https://github.com/pytorch/vision}",
        },
    ),
    "wightman2019timm": (
        "misc",
        {
            "author": "Wightman, Ross",
            "title": "{PyTorch} Image Models",
            "year": "2019",
            "howpublished": r"\url{https://github.com/rwightman/pytorch-image-models}",
            "doi": "10.5281/zenodo.4414861",
        },
    ),
    "wolf2020transformers": (
        "inproceedings",
        {
            "author": _TRANSFORMERS_AUTHORS,
            "title": "Transformers: State-of-the-Art Natural Language Processing",
            "booktitle": "Proceedings of the 2020 Conference on Empirical Methods in Natural "
            "Language Processing: System Demonstrations",
            "publisher": "Association for Computational Linguistics",
            "year": "2020",
            "pages": "38--45",
            "url": "https://aclanthology.org/2020.emnlp-demos.6/",
        },
    ),
    "fang2023depgraph": (
        "inproceedings",
        {
            "author": "Fang, Gongfan and Ma, Xinyin and Song, Mingli and Mi, Michael Bi and "
            "Wang, Xinchao",
            "title": "{DepGraph}: Towards Any Structural Pruning",
            "booktitle": "Proceedings of the {IEEE/CVF} Conference on Computer Vision and Pattern "
            "Recognition",
            "year": "2023",
            "pages": "16091--16101",
        },
    ),
    "guerreiro2021hypervolume": (
        "article",
        {
            "author": "Guerreiro, Andreia P. and Fonseca, Carlos M. and Paquete, Lu{\\'i}s",
            "title": "The Hypervolume Indicator: Computational Problems and Algorithms",
            "journal": "{ACM} Computing Surveys",
            "year": "2021",
            "volume": "54",
            "number": "6",
            "pages": "1--42",
            "doi": "10.1145/3453474",
        },
    ),
    "grunert2001attainment": (
        "incollection",
        {
            "author": "{Grunert da Fonseca}, Viviane and Fonseca, Carlos M. and Hall, Andreia O.",
            "title": "Inferential Performance Assessment of Stochastic Optimisers and the "
            "Attainment Function",
            "booktitle": "Evolutionary Multi-criterion Optimization, {EMO} 2001",
            "series": "Lecture Notes in Computer Science",
            "publisher": "Springer",
            "year": "2001",
            "volume": "1993",
            "pages": "213--225",
            "doi": "10.1007/3-540-44719-9_15",
        },
    ),
    "fonseca2011attainment": (
        "incollection",
        {
            "author": "Fonseca, Carlos M. and Guerreiro, Andreia P. and "
            "L{\\'o}pez-Ib{\\'a}{\\~n}ez, Manuel and Paquete, Lu{\\'i}s",
            "title": "On the Computation of the Empirical Attainment Function",
            "booktitle": "Evolutionary Multi-criterion Optimization, {EMO} 2011",
            "series": "Lecture Notes in Computer Science",
            "publisher": "Springer",
            "year": "2011",
            "volume": "6576",
            "pages": "106--120",
            "doi": "10.1007/978-3-642-19893-9_8",
        },
    ),
}
_MOOCORE = "moocore"
KEYS = frozenset({*_WORKS, _MOOCORE})
"""Keys of the works that can be cited."""


def cited(texts: Iterable[str]) -> tuple[str, ...]:
    r"""Return the keys that texts cite by `\cite`, in order of appearance."""
    groups = (match for text in texts for match in re.findall(r"\\cite\{([^}]*)\}", text))
    return tuple(dict.fromkeys(key.strip() for group in groups for key in group.split(",")))


def bibliography(keys: Iterable[str]) -> str:
    """Return BibTeX entries.

    Args:
        keys: keys in `KEYS`.
    """
    entries = ["% Add the entries of your network and your data."]
    for key in keys:
        kind, fields = _moocore() if key == _MOOCORE else _WORKS[key]
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
        entries.append("\n".join([f"@{kind}{{{key},", *lines, "}"]))
    return "\n\n".join(entries) + "\n"


def _moocore() -> tuple[str, dict[str, str]]:
    return "misc", {
        "author": "L{\\'o}pez-Ib{\\'a}{\\~n}ez, Manuel and others",
        "title": "{moocore}: Core Algorithms for Multi-Objective Optimization",
        "howpublished": r"\url{https://multi-objective.github.io/moocore/}",
        "note": f"Python package, version {version(_MOOCORE)}",
    }
