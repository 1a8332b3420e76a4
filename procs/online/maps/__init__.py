"""Maps: what is done with each spill by the workers, alone and in any order."""
