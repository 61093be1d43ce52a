"""From a dbt project to schedules."""
