"""Flower's options: on loopback, read-only, with our page and metrics.

Flower runs this file after it has read FLOWER_* variables and the command line, and reads the
command line once more afterwards. Each variable here that bears the name of one of its options
sets that option, so nothing else may bear one; what an operator set by a variable stays as it is.
"""

import logging as _logging
import os as _os
import sys as _sys

from tornado.options import options as _options

from enrich.errors import SettingsError as _SettingsError
from enrich.flower.mounting import guard as _guard
from enrich.flower.mounting import mount as _mount
from enrich.flower.tasks_page import task_words as _task_words
from enrich.worker.app import app as _app
from enrich.worker.app import log_settings as _log_settings
from enrich.worker.app import settings as _settings
from enrich.worker.remote import Workers as _Workers

_app.log.setup_logging_subsystem(loglevel=_logging.INFO)
_log_settings("flower")

# Last of all, so that no option on the command line can get around it.
_options.add_parse_callback(lambda: _guard(_options))

# Looking needs no right to stop a worker. FLOWER_READ_ONLY=false brings the controls back.
if "FLOWER_READ_ONLY" not in _os.environ:
    read_only = True

# A task's result is its one human line; its arguments are the name of its chunk.
if "FLOWER_TASKS_COLUMNS" not in _os.environ:
    tasks_columns = "name,args,result,state,received,runtime,worker"

# Flower's own default, 100,000, takes some hundred megabytes.
if "FLOWER_MAX_TASKS" not in _os.environ:
    max_tasks = 10_000

# Workers that a deploy replaced leave the list after an hour.
if "FLOWER_PURGE_OFFLINE_WORKERS" not in _os.environ:
    purge_offline_workers = 3600

try:
    _room = _mount(_settings, _Workers())
except _SettingsError as _error:
    print(f"enrich: {_error}", file=_sys.stderr)
    _sys.exit(2)

# Tasks in words: which chunk of which run, and how many logs.
format_task = _task_words(_room.latest.known)
