"""Prints the names that the real bindings of TensorRT and CUDA have, as JSON; run by the Python that has them.

    python tensorrt_names.py lean|full|cuda

A name's value is the first line of its docstring, which for a function of the bindings is its signature. Nothing but
the bindings is imported.
"""

import importlib
import json
import re
import sys

MODULES = {"lean": "tensorrt_lean_bindings", "full": "tensorrt_bindings", "cuda": "cuda.bindings.runtime"}
# What the back end touches; every member of these is written.
CLASSES = {
    "lean": ["Logger", "Runtime", "ICudaEngine", "IExecutionContext", "DataType", "IHostMemory"],
    "full": [
        "Builder",
        "BuilderFlag",
        "IBuilderConfig",
        "INetworkDefinition",
        "IProgressMonitor",
        "ITimingCache",
        "NetworkDefinitionCreationFlag",
        "OnnxParser",
    ],
    "cuda": ["cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode"],
}


def first_line(value: object) -> str:
    """A signature without the names of modules, which differ between packages."""
    lines = (getattr(value, "__doc__", None) or "").strip().splitlines() or [""]
    # Of an overloaded function the variants are listed below its name.
    line = next((x for x in lines if re.match(r"1\. ", x)), lines[0]) if "*args" in lines[0] else lines[0]
    return re.sub(r"\b[a-z_]+\.(?:[a-z_]+\.)*(?=[A-Z])", "", line.removeprefix("1. "))


def main(which: str) -> None:
    """Print them."""
    module = importlib.import_module(MODULES[which])
    found = {"version": str(getattr(module, "__version__", ""))}
    for name in CLASSES[which]:
        members = vars(getattr(module, name)) if which != "cuda" else getattr(module, name).__members__
        attributes = {
            k: first_line(v) for k, v in members.items() if not k.startswith("_") or k == "__init__"
        }
        # What the package sets on a class, as Logger.WARNING, and what is inherited.
        inherited = {
            k: "" for k in dir(getattr(module, name)) if not k.startswith("_") and k not in attributes
        }
        found[name] = {**inherited, **attributes}
    if which == "cuda":
        functions = [n for n in dir(module) if re.match(r"cuda[A-Z]", n) and callable(getattr(module, n))]
        found["functions"] = {n: first_line(getattr(module, n)) for n in functions}
        found["constants"] = {"cudaStreamNonBlocking": str(int(module.cudaStreamNonBlocking))}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
