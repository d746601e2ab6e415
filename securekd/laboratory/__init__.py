"""One person plays every party, to measure: yardsticks, attacks, and the record of a run."""
