import numpy as np
from quoin.stages.common import FakeResult, behave

from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.scene.blocks import Block, Partition, write_partition
from quoin.pipeline.storage.run import stage


@stage("partition", needs=("pose",), version=1, result=FakeResult)
def run(run, config, report):
    result = behave("partition", run, config, report)
    blocks = [
        Block(f"b{i}", BrickBox((i, 0, 0), (i + 1, 1, 1)), 1, np.arange(3), np.ones(3), cost=float(i))
        for i in range(config.blocks)
    ]
    lattice = Lattice((0.0, 0.0, 0.0), 0.1)
    write_partition(run, Partition(lattice, blocks, np.zeros(3), np.array([config.blocks * 3.2, 3.2, 3.2])))
    return result
