# What is measured: sourced by bench/run. A scenario sets
#   title     the heading in the report
#   variants  servers that are compared, the first one is the base of the ratios
#   keys size values   the dataset (values zeros: DEBUG POPULATE; json: stored by loadgen; types: keys of every type;
#                      lists: lists of 250 values)
#   typed        so many of the keys are values of a module's types (the tests' module)
#   restarted    the server is then stopped and loads the dataset from its dump
#   hogs         programs that use a CPU each as long as the load lasts
#   server_arguments   of every variant
#   written      keys that the load is about, when other than all
#   load      arguments of loadgen
#   rounds    pairs, when other than the default
#   interleaved  not fresh servers but slices of load on servers that stay up
#   alternating  seconds: one server under a load that does not end, measured so long with a UFFD.DIRTYRATE under way and
#                so long without, in turn; variants are these two
# and a variant becomes arguments of redis-server.

main_scenarios="idle set20k set40k zipf20k get90 mixed five-saves four-k saturated saturated-save saturated-dirty-rate-10 limit128 ten-saves json json-patched heap8g heap8g-1gb"
# Beside the installed server those of tests/servers/list, where they have been fetched (make servers).
# Where fork, or fork on huge pages, might be ahead.
pressure_scenarios="set20k zipf20k saturated-save idle five-saves on-installed busy restarted loaded-late heap16g heap8g saturated-io-threads types saturated-50m-keys lists module-tenth module-all"
servers_cache=${XDG_CACHE_HOME:-$HOME/.cache}/rdb_uffd/servers
# The installed server and those of tests/servers/list that have been fetched (make servers).
server_scenarios() {
    echo on-installed
    for name in $(awk '!/^#/ && NF { print $1 }' tests/servers/list); do
        if [ -x "$servers_cache/$name/server" ]; then
            echo "on-$name"
        else
            echo "bench: no server $name (make servers): left out" >&2
        fi
    done
}
heap_sizes="512 1024 2048 4096 8192"
quick_scenarios="idle set20k get90 limit128 saturated"

one_save="--saves 1 --before $before --duration $after"

# The honest rival takes part where it is the question.
usual_variants="fork uffd"
[ "$set" != pressure ] || usual_variants="fork fork-huge uffd"

scenario() {
    variants=$usual_variants keys=$default_keys size=100 values=zeros rounds=$pairs interleaved= alternating=
    restarted= hogs=0 typed=0 server_arguments=
    server_program=redis-server check_program=redis-check-rdb written=
    case $1 in
    idle)
        title="Idle: nobody writes"
        [ -n "$quick" ] || [ "$set" = pressure ] || variants="fork fork-huge uffd-one uffd"
        load="$one_save --rate 0" ;;
    set20k)
        title="20,000 uniform SET/s"
        [ -n "$quick" ] || [ "$set" = pressure ] || variants="fork uffd-one uffd"
        load="$one_save --rate 20000" ;;
    set40k)
        title="40,000 uniform SET/s"
        load="$one_save --rate 40000" ;;
    zipf20k)
        title="20,000 SET/s, Zipf 0.99"
        load="$one_save --rate 20000 --distribution zipf" ;;
    get90)
        title="30,000/s: 90 % GET, 10 % SET"
        load="$one_save --rate 30000 --mix get=90,set=10" ;;
    mixed)
        title="20,000/s: SET, GET, INCR, LPUSH, HSET in equal parts"
        load="$one_save --rate 20000 --mix set=20,get=20,incr=20,lpush=20,hset=20" ;;
    five-saves)
        title="Five saves in a row at 20,000 uniform SET/s"
        load="--saves 5 --gap 2 --before $before --duration $after --rate 20000" ;;
    four-k)
        title="Huge pages off: 20,000 uniform SET/s on 4 KB pages"
        variants="fork uffd-4k"
        load="$one_save --rate 20000" ;;
    saturated)
        title="Saturated, no save: what the idle module costs"
        interleaved=1 rounds=$slices
        load="--pipeline 16 --duration 2 --mix set=50,get=50" ;;
    saturated-save)
        title="Saturated, with a save"
        load="$one_save --pipeline 16 --mix set=50,get=50" ;;
    saturated-dirty-rate-*)
        alternating=${1#saturated-dirty-rate-} variants="uffd uffd-dirty-rate" rounds=$((slices * 2))
        title="Saturated, no save: what UFFD.DIRTYRATE $alternating costs while it runs"
        load="--pipeline 16" ;;
    limit128)
        title="buffer-limit 128mb at 20,000 uniform SET/s"
        variants="fork uffd-128mb"
        load="$one_save --rate 20000" ;;
    ten-saves)
        title="buffer-limit 128mb: ten saves in a row at 20,000 uniform SET/s"
        variants="uffd-128mb" rounds=1
        load="--saves 10 --gap 1 --before $before --duration $after --rate 20000" ;;
    json)
        rounds=1
        title="JSON values of 1 KB, buffer-limit 128mb, 20,000 uniform SET/s"
        variants="fork uffd-128mb-raw uffd-128mb" keys=1500000 size=1024 values=json
        load="$one_save --rate 20000 --value json" ;;
    json-patched)
        rounds=1
        title="JSON values of 1 KB changed in place, buffer-limit 128mb, 20,000 uniform SETRANGE/s"
        variants="fork uffd-128mb-raw uffd-128mb" keys=1500000 size=1024 values=json
        load="$one_save --rate 20000 --mix setrange=100" ;;
    heap8g)
        title="Heap of 8 GB (2,000,000 values of 4 KB) at 10,000 uniform SET/s, two saves with a second between them"
        keys=2000000 size=4000
        load="--saves 2 --gap 1 --before $before --duration $after --rate 10000" ;;
    heap8g-1gb)
        rounds=1
        title="The same heap of 8 GB with buffer-limit 1gb"
        variants="fork uffd-1gb" keys=2000000 size=4000
        load="$one_save --rate 10000" ;;
    busy)
        title="20,000 uniform SET/s at 4,000,000 keys while two other programs want a CPU each"
        keys=4000000 hogs=2
        load="$one_save --rate 20000" ;;
    restarted)
        title="First save after loading a dump of 3,000,000 keys"
        keys=3000000 restarted=1
        load="--saves 1 --before 1 --duration 1 --rate 0" ;;
    loaded-late)
        title="First save after MODULE LOAD on a server with 3,000,000 keys"
        variants="fork uffd-late" keys=3000000
        load="--saves 1 --before 1 --duration 1 --rate 0" ;;
    heap16g)
        title="Heap of 16 GB (3,800,000 values of 4 KB), idle"
        keys=3800000 size=4000 rounds=1
        load="--saves 3 --gap 1 --before 1 --duration 0 --rate 0" ;;
    saturated-io-threads)
        title="Saturated, with a save, io-threads 4"
        server_arguments="--io-threads 4"
        load="$one_save --pipeline 16 --mix set=50,get=50" ;;
    types)
        title="2,000,000 small keys of every type, 10,000 SET/s"
        keys=2000000 values=types
        load="$one_save --rate 10000" ;;
    saturated-50m-keys)
        title="50,000,000 keys, saturated with SET"
        variants="fork uffd" keys=50000000 size=16 rounds=1
        load="$one_save --pipeline 16" ;;
    lists)
        title="50,000 lists of 250 values of 200 bytes, 1,000 LPUSH/s"
        keys=50000 size=200 values=lists written=5000000 # loadgen has a list for every 100 keys
        load="$one_save --rate 1000 --mix lpush=100" ;;
    module-tenth)
        title="A GB, a tenth of it values of a module's types, 5,000 SET/s to the others"
        variants="fork fork-huge uffd-child uffd-child-1gb" keys=950000 size=1000 typed=95000 ;;
    module-all)
        title="A GB, all of it but 20 MB values of a module's types, 5,000 SET/s to the others"
        variants="fork fork-huge uffd-child-8gb" keys=950000 size=1000 typed=930000 rounds=1 ;;
    on-*)
        keys=1000000
        if [ "$1" = on-installed ]; then
            version=$(redis-server --version | grep -o 'v=[0-9.]*')
        else
            server_program=$servers_cache/${1#on-}/server check_program=$servers_cache/${1#on-}/check-rdb
            [ -x "$server_program" ] || fail "no server ${1#on-}: make servers"
            version="v=$(cat "$servers_cache/${1#on-}/version")"
        fi
        title="Server ${1#on-} ${version#v=}: 1,000,000 keys, 20,000 uniform SET/s"
        load="$one_save --rate 20000"
        # What a server learns in its first save, the others have.
        [ "$set" != pressure ] || load="--saves 3 --gap 2 --before $before --duration $after --rate 20000" ;;
    heap-*)
        title="Heap of ${1#heap-} MB, idle"
        variants="fork fork-huge uffd uffd-4k" rounds=1
        keys=$((${1#heap-} * 950)) size=1000
        load="--saves 3 --gap 1 --before 1 --duration 0 --rate 0" ;;
    *)
        fail "no scenario $1; there are: $main_scenarios $pressure_scenarios $(server_scenarios) heap-MEGABYTES saturated-dirty-rate-SECONDS" ;;
    esac
    if [ $typed != 0 ]; then
        [ -e "$typed_module" ] || fail "no build/tests/modules/typed.so: run make loadgen"
        server_arguments="--loadmodule $typed_module plain" written=$((keys - typed))
        load="$one_save --rate 5000"
    fi
    load="$load --keys ${written:-$keys} --value-size $size"
}

# fork-huge: the module gives the heap huge pages and is then told to leave saving to fork; a plain server on the kernel's
# setting `madvise` never has any, and on `always` it turns them off for itself.
variant_arguments() {
    case $1 in
    fork) ;;
    fork-huge | uffd) echo "--loadmodule $module" ;;
    uffd-late) echo "--enable-module-command yes" ;;
    uffd-child) echo "--loadmodule $module value-child yes" ;;
    uffd-child-*) echo "--loadmodule $module value-child yes buffer-limit ${1#uffd-child-}" ;;
    uffd-one) echo "--loadmodule $module threads 1" ;;
    uffd-4k) echo "--loadmodule $module huge-pages no" ;;
    uffd-1gb) echo "--loadmodule $module buffer-limit 1gb" ;;
    uffd-128mb) echo "--loadmodule $module buffer-limit 128mb" ;;
    uffd-128mb-raw) echo "--loadmodule $module buffer-limit 128mb compression no" ;;
    *) fail "no variant $1" ;;
    esac
}

# Once the data is in.
variant_ready() {
    case $1 in
    fork-huge) [ "$(cli config set uffd.enabled no)" = OK ] || fail "cannot turn the module off" ;;
    uffd-late) [ "$(cli module load "$module")" = OK ] || fail "cannot load the module"
               sleep 2 ;; # as long as after filling
    esac
}
