"""Imported by a fork server that will run many exports: see `exporter.template`."""

import logging
import warnings

from exporter import template

logging.disable(logging.WARNING)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    template.warm_up()
logging.disable(logging.NOTSET)
template.freeze()
