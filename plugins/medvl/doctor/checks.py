"""What `medvl doctor` concludes from what it saw: pure functions from facts to results in plain words."""

from __future__ import annotations

from collections.abc import Mapping

from medvl.doctor.check_result import REINSTALL, CheckResult, Level
from medvl.doctor.facts import Facts, Hook, Hub, Machine
from medvl.doctor.versions import check_versions

# InternVL3-8B downloads 16 GB, a checkpoint of an 8B LoRA run with optimiser states takes about 0.3 GB.
DISK_COMFORT_GB, DISK_MINIMUM_GB = 40.0, 2.0
RAM_COMFORT_GB = 16.0
SHM_COMFORT_GB = 1.0


def judge(facts: Facts) -> list[CheckResult]:
    """All results, in the order of the report."""
    results = check_versions(facts.installed, facts.known_good)
    results.append(check_import(facts.import_error))
    if facts.import_error is None:
        results.append(check_hook(facts.hook))
    results += check_environment(facts.variables)
    results += check_machine(facts.machine)
    results.append(check_hub(facts.hub))
    return results


def check_import(error: str | None) -> CheckResult:
    """Whether `llamafactory.train.tuner`, what `llamafactory-cli train` runs, could be imported."""
    if error is None:
        return CheckResult("ok", "LLaMA-Factory", "imports")
    cures = {
        "CUDA version": "torch and torchaudio are built for different CUDA versions; " + REINSTALL,
        "torchvision::nms": "torch and torchvision do not fit together; " + REINSTALL,
        "No module named": REINSTALL,
    }
    cure = next((text for sign, text in cures.items() if sign in error), REINSTALL)
    return CheckResult("problem", "LLaMA-Factory", f"does not import: {error}", cure)


def check_hook(hook: Hook) -> CheckResult:
    """Whether recipes may use medvl keys."""
    subject = "recipe keys (hook)"
    if hook.disabled:
        return CheckResult("warning", subject, "switched off by MEDVL_DISABLE: recipes with medvl keys are refused",
                       "unset MEDVL_DISABLE")  # fmt: skip
    if not hook.autoload:
        return CheckResult("problem", subject, "torch loads no entry points: recipes with medvl keys are refused",
                       "unset TORCH_DEVICE_BACKEND_AUTOLOAD")  # fmt: skip
    if not hook.called:
        return CheckResult("problem", subject, "not installed: torch does not know medvl's entry point", REINSTALL)
    if hook.failures:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(hook.failures.items()))
        return CheckResult("problem", subject, f"inactive, recipes with medvl keys are refused ({reasons})", REINSTALL)
    missing = hook.targets - hook.extended
    if missing:
        text = f"not applied to {', '.join(sorted(missing))}: recipes with medvl keys are refused"
        return CheckResult("problem", subject, text, REINSTALL)
    return CheckResult("ok", subject, "active")


def check_machine(machine: Machine) -> list[CheckResult]:
    """GPU, memory, disk and torchrun."""
    return [*_gpu(machine), _torchrun(machine), *_memory(machine), *_disk(machine)]


def check_environment(variables: Mapping[str, str]) -> list[CheckResult]:
    """Environment variables that change what LLaMA-Factory does without a word."""
    results = []
    if variables.get("ALLOW_EXTRA_ARGS", "").lower() in {"1", "y", "true"}:
        text = "unknown recipe keys are ignored without a message: a misspelt key trains with its default"
        results.append(CheckResult("warning", "ALLOW_EXTRA_ARGS", text, "unset ALLOW_EXTRA_ARGS"))
    if variables.get("USE_V1", "").lower() in {"1", "y", "true"}:
        text = "LLaMA-Factory's new engine handles no images and knows no medvl keys"
        results.append(CheckResult("problem", "USE_V1", text, "unset USE_V1"))
    return results


def check_hub(hub: Hub) -> CheckResult:
    """Whether model names (as against folders) can be downloaded."""
    if hub.missing is not None:
        return CheckResult("problem", "model hub", f"huggingface_hub does not import: {hub.missing}", REINSTALL)
    if hub.offline:
        return CheckResult(
            "note", "model hub", "HF_HUB_OFFLINE is set: only models in the cache and local folders load"
        )
    if not hub.asked:
        return CheckResult("note", "model hub", "not tried; `medvl doctor --hub` does")
    if hub.error is None:
        return CheckResult("ok", "model hub", f"{hub.endpoint} answers")
    cure = "download the model elsewhere and give its folder as model_name_or_path"
    return CheckResult("warning", "model hub", f"{hub.endpoint} does not answer: {hub.error}", cure)


def _gpu(machine: Machine) -> list[CheckResult]:
    if not machine.gpus and machine.nvidia_driver:
        built = f"CUDA {machine.torch_cuda}" if machine.torch_cuda else "CPUs only"
        text = f"an NVIDIA driver is there but torch (built for {built}) sees no GPU: training would run on the CPU"
        cure = "update the driver, or check CUDA_VISIBLE_DEVICES" if machine.torch_cuda else REINSTALL
        return [CheckResult("problem", "GPU", text, cure)]
    if not machine.gpus:
        text = "none: `medvl demo` and the tests run, the 4B and 8B recipes need one"
        return [CheckResult("note", "GPU", text, "recipes with bf16 need use_cpu=true here")]
    results = []
    for index, gpu in enumerate(machine.gpus):
        subject, text = f"GPU {index}", f"{gpu.name}, {gpu.memory_gb:.0f} GB"
        if gpu.bf16:
            results.append(CheckResult("ok", subject, f"{text}, bf16"))
        else:
            cure = "add bf16=false fp16=true on the command line"
            results.append(
                CheckResult("warning", subject, f"{text}, no bf16: the recipes are refused as they are", cure)
            )
    return results


def _torchrun(machine: Machine) -> CheckResult:
    here = machine.environment
    activate = f"source {here / 'activate'}"
    if machine.torchrun is None:
        level: Level = "problem" if len(machine.gpus) > 1 else "warning"
        why = "with several GPUs every run needs it" if level == "problem" else "FORCE_TORCHRUN=1 and DeepSpeed need it"
        return CheckResult(level, "torchrun", f"not on PATH: {why}", activate)
    if machine.torchrun.parent != here:
        text = f"{machine.torchrun} belongs to another environment than {here}"
        return CheckResult("warning", "torchrun", text, activate)
    return CheckResult("ok", "torchrun", "on PATH")


def _memory(machine: Machine) -> list[CheckResult]:
    results = []
    if machine.ram_gb is not None:
        text = f"{machine.ram_gb:.0f} GB"
        if machine.ram_gb < RAM_COMFORT_GB:
            cure = "lower preprocessing_num_workers and dataloader_num_workers"
            results.append(CheckResult("warning", "memory", f"{text}: little for the recipes' 16 workers", cure))
        else:
            results.append(CheckResult("ok", "memory", text))
    if machine.shm_gb is not None and machine.shm_gb < SHM_COMFORT_GB:
        text = f"{machine.shm_gb:.2f} GB: data loader workers die with a bus error"
        results.append(
            CheckResult("warning", "/dev/shm", text, "docker run --shm-size 16g, or dataloader_num_workers=0")
        )
    return results


def _disk(machine: Machine) -> list[CheckResult]:
    results = []
    for folder, free in machine.disk_free_gb.items():
        text = f"{free:.0f} GB free in {folder}"
        if free < DISK_MINIMUM_GB:
            results.append(CheckResult("problem", "disk", f"{text}: a run would fail when it saves", "free some space"))
        elif free < DISK_COMFORT_GB:
            results.append(CheckResult("note", "disk", f"{text}: little for an 8B model (16 GB) and its checkpoints"))
        else:
            results.append(CheckResult("ok", "disk", text))
    return results
