#!/usr/bin/env bash
# Runs a JobManager or a TaskManager in the foreground: flink-node jobmanager|taskmanager [-D key=value]...
# Flink itself computes JVM options and memory from config.yaml in FLINK_CONF_DIR, as its own scripts have it do.
set -euo pipefail
: "${FLINK_CONF_DIR:?}" "${FLINK_LOG_DIR:?}"

role=$1
home=$(dirname "$(dirname "$(readlink -f "$0")")")
case $role in
  jobmanager)
    memory=GET_JM_RESOURCE_PARAMS
    main=(org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint --executionMode cluster)
    ;;
  taskmanager)
    memory=GET_TM_RESOURCE_PARAMS
    main=(org.apache.flink.runtime.taskexecutor.TaskManagerRunner)
    ;;
  *)
    echo "flink-node: role is '$role', allowed: jobmanager, taskmanager" >&2
    exit 2
    ;;
esac

# flink-dist last, as in Flink's scripts: jars of ours may shadow what it bundles.
classpath=
for jar in "$home"/lib/*.jar; do
  case $jar in
    */flink-dist-*) dist=$jar ;;
    *) classpath+=$jar: ;;
  esac
done
classpath+=$dist

computed=$(java -XX:TieredStopAtLevel=1 -cp "$home/bin/bash-java-utils.jar:$dist" \
  org.apache.flink.runtime.util.bash.BashJavaUtils "$memory" --configDir "$FLINK_CONF_DIR" "${@:2}" 2>&1) \
  || {
    # Of Flink's page: what each of its exceptions says, the last of which names the value.
    reasons=$(sed -nE 's/^(Exception in thread "main"|Caused by:) [A-Za-z0-9.$]+: //p' <<<"$computed" | paste -sd ' ')
    echo "flink-node: settings are refused: ${reasons:-$computed}" >&2
    exit 1
  }
# Two lines: options of the JVM, then arguments of Flink.
mapfile -t results < <(sed -n 's/^BASH_JAVA_UTILS_EXEC_RESULT://p' <<<"$computed")
read -ra jvm <<<"${results[0]}"
read -ra dynamic <<<"${results[1]}"

# What one that was killed left on this machine: temporary files of Flink and of its workers, whose user has no others,
# and RocksDB's; state comes back from the checkpoint.
# The Kubernetes operator writes the file of older Flinks for 1.19, without quotes.
settings=$FLINK_CONF_DIR/config.yaml
[[ -f $settings ]] || settings=$FLINK_CONF_DIR/flink-conf.yaml
temporary=$(sed -n 's/^io\.tmp\.dirs: "\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$settings" | head -n 1)
if [[ -d $temporary ]]; then
  find "$temporary" -mindepth 1 -maxdepth 1 -user "$(id -un)" -exec rm -rf {} + || echo "flink-node: $temporary is not clean" >&2
fi
state=$(sed -n 's/^state\.backend\.rocksdb\.localdir: "\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$settings" | head -n 1)
if [[ $role == taskmanager && -d $state ]]; then
  find "$state" -mindepth 1 ! -name lost+found -delete
fi

logging=$FLINK_CONF_DIR/log4j.properties
[[ ! -f $FLINK_CONF_DIR/log4j-console.properties ]] || logging=$FLINK_CONF_DIR/log4j-console.properties
# ZooKeeper's login. What Flink stores there belongs to JobManagers; TaskManagers read it.
login=()
if [[ -f $FLINK_CONF_DIR/jaas.conf ]]; then
  login=("-Djava.security.auth.login.config=$FLINK_CONF_DIR/jaas.conf" -Deventtrigger.zookeeper.owner=jobmanager)
fi
export FLINK_CONF_DIR FLINK_LIB_DIR=$home/lib FLINK_PLUGINS_DIR=$home/plugins
exec java "${jvm[@]}" "${login[@]}" -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError "@$home/bin/java-options" \
  "-Dlog.file=$FLINK_LOG_DIR/$role.log" "-Dlog4j.configurationFile=$logging" \
  -cp "$classpath" "${main[@]}" --configDir "$FLINK_CONF_DIR" "${dynamic[@]}" "${@:2}"
