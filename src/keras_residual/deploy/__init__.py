"""Models as files of other runtimes: exported, checked, made int8, run."""
