"""Engines behind `transport.core.engine.Engine`."""
