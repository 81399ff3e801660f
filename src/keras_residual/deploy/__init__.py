"""Models as files of other runtimes: exported, checked, made int8, run."""

from keras_residual.deploy.child import ExportError
from keras_residual.deploy.export import ExportReport, export
from keras_residual.deploy.exported import Exported, load_exported

__all__ = ["ExportError", "ExportReport", "Exported", "export", "load_exported"]
