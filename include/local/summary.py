"""What the demo shows at its end, as one line of JSON: raw tables, one mart."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import psycopg2
import snowflake.connector

from include.connections import PostgresConnection, SnowflakeConnection
from include.extract_load.reconcile import compare
from include.extract_load.source import load_source
from include.settings import local_password, settings

MART = "MARTS.DAILY_REVENUE"
