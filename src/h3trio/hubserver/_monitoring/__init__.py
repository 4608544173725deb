"""Monitoring of the hub server: statistics, metrics, the dashboard."""
