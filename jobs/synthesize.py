"""Run `mapl synthesize` as a Ray job:

`ray job submit --working-dir . -- python jobs/synthesize.py --config mapl_ray/demo.yaml`
"""

import sys

from mapl_ray.cli import main
from mapl_ray.distributed.jobs.job_environment import job_arguments

sys.exit(main(["synthesize", *job_arguments(sys.argv[1:])]))
