"""An auth manager of Airflow's whose users may see parts: by their names, for a test."""

from __future__ import annotations

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager


class PartRights(SimpleAuthManager):
    def is_authorized_dag(self, *, method, user, access_entity=None, details=None):
        dag_id = details.id if details else None
        if user.username == "nobody":
            return False
        if user.username == "late" and dag_id not in (None, "elt_late"):
            return False
        if user.username == "nologs" and access_entity == DagAccessEntity.TASK_LOGS:
            return False
        if user.username == "unsure" and access_entity == DagAccessEntity.TASK_LOGS:
            raise RuntimeError("whoever keeps rights does not answer")
        if user.username == "noruns" and access_entity == DagAccessEntity.RUN:
            return dag_id == "elt_standard"
        return super().is_authorized_dag(
            method=method, user=user, access_entity=access_entity, details=details
        )
