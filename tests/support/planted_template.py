"""What a fork server imports before its first fork, and dies of, without a word."""

import os

os._exit(1)
