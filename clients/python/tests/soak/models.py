"""The models that the soak asks: samples and test models, some with a configuration of the soak's own."""

import shutil

from server_process import SAMPLES

# What the server is started with.
CLIENT_TIMEOUT = 5  # seconds; stalling clients meet it
REQUEST_MEMORY = 5 << 19  # bytes; the largest requests together meet it
CACHE = 1 << 20  # bytes; full before the memory is looked at
OPTIONS = [
    f"--client-timeout={CLIENT_TIMEOUT}s",
    f"--max-request-memory={REQUEST_MEMORY}",
    f"--cache-config=local,size={CACHE}",
]

# How many requests of a model may wait; of `levels`, those of the first priority.
PLACES = {"shared": 8, "narrow": 4, "levels": 4}

# By name: the model that it is a copy of, and what is added to its configuration.
MODELS = {
    "identity": ("identity", ""),
    "identity_bytes": ("identity_bytes", ""),
    "fails_to_run": ("fails_to_run", ""),
    "optional_outputs": ("optional_outputs", ""),
    "ragged_sums": ("ragged_sums", ""),
    "slow": ("slow", ""),
    "simple": (
        "simple",
        "instance_group { count: 2 } "
        "dynamic_batching { preferred_batch_size: 4 max_queue_delay_microseconds: 1000 }",
    ),
    "simple_string": ("simple_string", "dynamic_batching { }"),
    "digits": (
        "digits",
        'dynamic_batching { } parameters { key: "latency_objective_ms" value { string_value: "20" } }',
    ),
    "ordered": (
        "identity",
        "instance_group { count: 3 } "
        "dynamic_batching { preserve_ordering: true max_queue_delay_microseconds: 200 }",
    ),
    "remembered": ("identity", "dynamic_batching { } response_cache { enable: true }"),
    "shared": (
        "slow_rows",
        f"dynamic_batching {{ default_queue_policy {{ max_queue_size: {PLACES['shared']} }} }} "
        "response_cache { enable: true }",
    ),
    "narrow": (
        "slow_rows",
        f"dynamic_batching {{ default_queue_policy {{ max_queue_size: {PLACES['narrow']} "
        "default_timeout_microseconds: 20000 allow_timeout_override: true } }",
    ),
    "levels": (
        "slow_rows",
        "dynamic_batching { priority_levels: 3 default_priority_level: 2 "
        f"priority_queue_policy {{ key: 1 value {{ max_queue_size: {PLACES['levels']} }} }} "
        "priority_queue_policy { key: 3 value { timeout_action: DELAY default_timeout_microseconds: 5000 } } }",
    ),
}

# Asked only by clients that wait for every answer: what the server counts for these is known to the unit.
COUNTED_EXACTLY = {"simple", "simple_string", "identity_bytes", "fails_to_run", "narrow"}

# Those whose answers are kept.
REMEMBER = {name for name, (_, more) in MODELS.items() if "response_cache" in more}


def write(repository, test_models):
    """Writes the repository; `test_models` holds what `test_models.py` makes."""
    for name, (original, more) in MODELS.items():
        sample = SAMPLES / original
        shutil.copytree(sample if sample.is_dir() else test_models / original, repository / name)
        config = (repository / name / "config.pbtxt").read_text()
        config = config.replace(f'name: "{original}"', f'name: "{name}"', 1)
        (repository / name / "config.pbtxt").write_text(config + more)
