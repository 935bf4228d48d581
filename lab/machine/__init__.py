"""The computer: files, locks, signals, devices, and the state that processes start from.

What would be the same in any project that must not lose results. Nothing here knows of arms,
trainings or verdicts.
"""
