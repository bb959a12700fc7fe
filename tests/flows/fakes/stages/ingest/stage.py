from quoin.stages.common import FakeResult, behave

from quoin.pipeline.scene.photo_table import write_photo_table
from quoin.pipeline.storage.run import stage


@stage("ingest", needs=(), version=1, result=FakeResult)
def run(run, config, report):
    write_photo_table(run, [])  # who finds poses counts the photos first
    return behave("ingest", run, config, report)
