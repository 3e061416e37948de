#!/bin/sh
# Fetches the jars of Apache Kafka from Maven Central into a directory: tests/parts/kafka.sh DIR
# Does nothing when they are there already; a changed pom.xml fetches them anew.
set -eu

if [ $# -ne 1 ]; then
    echo "usage: $0 DIRECTORY" >&2
    exit 64
fi
lib=$1

for tool in java mvn; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "kafka.sh: '$tool' is missing: apt-get install openjdk-17-jre-headless maven" >&2
        exit 1
    fi
done
pom=$(cd "$(dirname "$0")/kafka" && pwd)/pom.xml

# The stamp is a copy of the pom and is written last, so a fetch that was cut off is repeated.
if cmp -s "$pom" "$lib/.fetched"; then
    exit 0
fi
echo "  kafka: fetching the jars of Apache Kafka (54 MB) from Maven Central into $lib"
mkdir -p "$lib"
lib=$(cd "$lib" && pwd)
rm -f "$lib"/*.jar "$lib/.fetched"
if ! mvn -q -B -f "$pom" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$lib" >"$lib/fetch.log" 2>&1; then
    echo "kafka.sh: Maven could not fetch Apache Kafka, see $lib/fetch.log" >&2
    exit 1
fi
rm -f "$lib/fetch.log"
cp "$pom" "$lib/.fetched.new"
mv "$lib/.fetched.new" "$lib/.fetched"
