"""Flink's configuration, as one dict with the reason beside each setting.

The cluster reads half of these settings; the program that submits a job reads the other half (all of ``execution.*``,
``pipeline.*``). So JobManager, TaskManagers and the job server get the same file. It is ``config.yaml``, Flink 1.19's
standard YAML: the older flink-conf.yaml silently wins if both exist, has no quoting, and is gone in Flink 2.
"""

import json
from collections.abc import Mapping
from pathlib import Path

BASE: Mapping[str, str] = {
    # State: on disk, so that it may be larger than memory; a checkpoint uploads only what changed.
    "state.backend.type": "rocksdb",
    "state.backend.incremental": "true",
    # A broken newest checkpoint does not cost the state: there are two before it.
    "state.checkpoints.num-retained": "3",
    # State is exactly once.
    "execution.checkpointing.mode": "EXACTLY_ONCE",
    # At most a minute is replayed after a failure, and read-committed readers wait at most a minute.
    "execution.checkpointing.interval": "60 s",
    # A checkpoint that takes longer than this is given up.
    "execution.checkpointing.timeout": "10 min",
    # However slow checkpoints are, half of the time belongs to events.
    "execution.checkpointing.min-pause": "30 s",
    # Two at once would compete for the same disks and uploads.
    "execution.checkpointing.max-concurrent-checkpoints": "1",
    # A cancelled job can be resumed from its last checkpoint.
    "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
    # Under backpressure barriers overtake queued events after 10 s, so that checkpoints still complete.
    "execution.checkpointing.unaligned.enabled": "true",
    "execution.checkpointing.aligned-checkpoint-timeout": "10 s",
    # The default of 0 fails the job on its first failed checkpoint; an unreachable S3 must not stop events.
    "execution.checkpointing.tolerable-failed-checkpoints": "30",
    # S3's client retries for some seconds, then the checkpoint fails and the next one tries again. By default it sleeps
    # up to 20 s between its twenty attempts (and repeats those seven times), also when S3 is back.
    "s3.attempts.maximum": "4",
    "s3.retry.limit": "3",
    # 503 SlowDown has attempts of its own, with pauses of 100 ms that double: six take 6 s. With the default of 20 the
    # client sleeps for minutes after a minute of it, also when S3 is back, and holds up the checkpoints that follow.
    "s3.retry.throttle.limit": "6",
    # Restart without limit, quickly first, then more and more slowly; ten minutes without failure reset the delay.
    "restart-strategy.type": "exponential-delay",
    "restart-strategy.exponential-delay.initial-backoff": "1 s",
    "restart-strategy.exponential-delay.max-backoff": "1 min",
    "restart-strategy.exponential-delay.backoff-multiplier": "2.0",
    "restart-strategy.exponential-delay.reset-backoff-threshold": "10 min",
    "restart-strategy.exponential-delay.jitter-factor": "0.1",
    # A task that is told to cancel is interrupted this often (milliseconds), and after the timeout its TaskManager ends
    # itself, to be started anew by whatever supervises it: a recovery waits 15 s for a task that hangs, not three
    # minutes.
    "task.cancellation.interval": "5000",
    "task.cancellation.timeout": "15000",
    # Flink's default of 100 ms is added at every shuffle; 5 ms keeps batches and the latency goal.
    "execution.buffer-timeout.interval": "5 ms",
    # RocksDB's share of the TaskManager's memory.
    "taskmanager.memory.managed.fraction": "0.4",
    # Shuffle buffers' share.
    "taskmanager.memory.network.fraction": "0.1",
    # With all jars in lib/ classes take 100 MB and stay there over repeated submissions.
    "taskmanager.memory.jvm-metaspace.size": "256m",
    "jobmanager.memory.jvm-metaspace.size": "256m",
    # A job runs on the slots that there are, up to its parallelism, and takes new ones in. Flink's default scheduler
    # waits for all slots: one lost machine stops the job.
    "jobmanager.scheduler": "adaptive",
    # However long no slot comes, the job waits; by default it fails for good after five minutes.
    "jobmanager.adaptive-scheduler.resource-wait-timeout": "365 d",
    # A job that lost a machine starts without it after this time; one that is back sooner is taken in at once.
    "jobmanager.adaptive-scheduler.resource-stabilization-timeout": "5 s",
    # Subtasks of the one heavy stage on all TaskManagers instead of filling up the first.
    "cluster.evenly-spread-out-slots": "true",
    # One lost response (a TaskManager is killed during the request) keeps REST from fetching metrics for this long
    # (milliseconds; ten minutes by default). Submitting and cancelling wait as long for the JobManager, which responds
    # at once; savepoints may take any time.
    "web.timeout": "60000",
    # One counter per process to scrape; the plugin comes with Flink.
    "metrics.reporter.prom.factory.class": "org.apache.flink.metrics.prometheus.PrometheusReporterFactory",
    # State on disk and pending compaction; these three are read without locking RocksDB.
    "state.backend.rocksdb.metrics.total-sst-files-size": "true",
    "state.backend.rocksdb.metrics.estimate-pending-compaction-bytes": "true",
    "state.backend.rocksdb.metrics.num-running-compactions": "true",
    # Bytes of state and compaction: Flink measures no disk, and a TaskManager uses its disk for these.
    "state.backend.rocksdb.metrics.bytes-read": "true",
    "state.backend.rocksdb.metrics.bytes-written": "true",
    "state.backend.rocksdb.metrics.compaction-read-bytes": "true",
    "state.backend.rocksdb.metrics.compaction-write-bytes": "true",
    # The state's name as a label, not as part of the metric's name.
    "state.backend.rocksdb.metrics.column-family-as-variable": "true",
}

# Settings that are submitted with a job. The restart strategy is not: only the cluster's operator knows how soon its
# machines come back.
OF_JOBS: Mapping[str, str] = {key: value for key, value in BASE.items() if not key.startswith("restart-strategy.")}

LOCAL: Mapping[str, str] = {
    # Nothing of a local cluster is reachable from outside: these, the reporter of metrics (CLOSED_HTTP_SERVERS), and
    # Beam's servers for workers (beam-overrides.jar).
    "jobmanager.rpc.address": "127.0.0.1",
    "jobmanager.bind-host": "127.0.0.1",
    "taskmanager.host": "127.0.0.1",
    "taskmanager.bind-host": "127.0.0.1",
    "rest.address": "127.0.0.1",
    "rest.bind-address": "127.0.0.1",
    # Small enough for a laptop: 1 GB for the JobManager, 1.7 GB for each TaskManager (Python workers come on top).
    "jobmanager.memory.process.size": "1024m",
    "taskmanager.memory.process.size": "1728m",
    # Flink notices a killed TaskManager within seconds instead of a minute (both in milliseconds).
    "heartbeat.interval": "2000",
    "heartbeat.timeout": "20000",
    # Who runs a local cluster starts a killed TaskManager again within seconds. A job that began without it would
    # restart a second time.
    "jobmanager.scheduler": "Default",
    # REST shows metrics and jobs as they were at most a second ago, instead of ten and three.
    "metrics.fetcher.update-interval": "1000",
    "web.refresh-interval": "500",
    # Restarted TaskManagers register within seconds, so a delay of a minute is never needed.
    "restart-strategy.exponential-delay.max-backoff": "5 s",
}


# Flink's own list for Java 17 (env.java.opts.all in the config.yaml that it ships).
JAVA_17_OPTIONS = (
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
    "--add-exports=jdk.compiler/com.sun.tools.javac.api=ALL-UNNAMED",
    "--add-exports=jdk.compiler/com.sun.tools.javac.file=ALL-UNNAMED",
    "--add-exports=jdk.compiler/com.sun.tools.javac.parser=ALL-UNNAMED",
    "--add-exports=jdk.compiler/com.sun.tools.javac.tree=ALL-UNNAMED",
    "--add-exports=jdk.compiler/com.sun.tools.javac.util=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.net=ALL-UNNAMED",
    "--add-opens=java.base/java.io=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/java.lang.reflect=ALL-UNNAMED",
    "--add-opens=java.base/java.text=ALL-UNNAMED",
    "--add-opens=java.base/java.time=ALL-UNNAMED",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent.locks=ALL-UNNAMED",
)

# The Prometheus reporter listens on every interface and has no setting for it; so it does on 127.0.0.1 only.
CLOSED_HTTP_SERVERS = (
    "--add-exports=jdk.httpserver/sun.net.httpserver=ALL-UNNAMED",
    "-Dcom.sun.net.httpserver.HttpServerProvider=eventtrigger.flink.LoopbackHttpServers",
)

# Log4j reads this in Flink's processes; ${sys:log.file} is set on their command line.
LOG4J = """\
monitorInterval=0
rootLogger.level=INFO
rootLogger.appenderRef.file.ref=file
appender.file.name=file
appender.file.type=FILE
appender.file.fileName=${sys:log.file}
appender.file.append=true
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %-60c %x - %m%n
logger.pekko.name=org.apache.pekko
logger.pekko.level=WARN
logger.kafka.name=org.apache.kafka
logger.kafka.level=WARN
logger.netty.name=org.jboss.netty.channel.DefaultChannelPipeline
logger.netty.level=OFF
"""


def write(folder: Path, settings: Mapping[str, str]) -> None:
    """Write config.yaml and log4j.properties into ``folder``. Values are strings as in Flink's documentation."""
    # Every JSON string is a YAML string.
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in sorted(settings.items())]
    (folder / "config.yaml").write_text("".join(lines))
    (folder / "log4j.properties").write_text(LOG4J)
