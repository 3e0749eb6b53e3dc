"""Eight simulated CPU devices, exact matrix products, and warnings about nothing we can change kept quiet."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_default_matmul_precision", "highest")
