"""One training loop for methods, affinity nets and segmentation nets, and the small tools beside it.

`loop` trains, `schedule` gives learning rates, `checkpoint` writes files that are whole or absent, `journal`
keeps the log, `seeding` the random states. Names are imported from these modules, since the data readers
use `checkpoint` while `loop` itself stands on the data room.
"""
