/* How the past is kept: a model of the protocol for spin (tests/model/run checks it).
 *
 * What is here          what it stands for (src/)
 * main_thread           freeze.c freeze_begin(), freeze(), thaw(); view.c view_set_regions();
 *                       fault_server.c fault_server_arm(); heap.c heap_open(),
 *                       heap_protect()
 * reader, read_page     view.c view_read(), read_in_page(); preserved_reading.c
 *                       preserved_read(), read_once()
 * saver                 saver.c run(): the reader that also ends it: dump.c write_keys(),
 *                       publish(); saver.c release_memory(); snapshot.c
 *                       snapshot_lift_protection()
 * writer                a thread of the server: a store, the kernel's handle_userfault();
 *                       drop: guard.c guarded_madvise(), guard_operations.c preserve(),
 *                       fault_server.c fault_server_preserve()
 * server                fault_server.c serve(), serve_once(), serve_fault(), serve_request()
 *   put                 preserved.c preserved_put(), publish_first()
 *   pack, spool_*       preserved_moving.c log_add(), spool_slot(), spool_log_slot()
 *   free_slot           preserved_slots.c slot_free(); and what may become of a free slot:
 *                       used for another page, given back by slots_cool()
 * upkeep                eviction.c evict(), spool_all(); deferred_free.c deferred_free_hold()
 * watchdog              rescue.c rescue_pull(); saver.c saver_kill()
 * marks_go              what takes the mark of a page away: same-page merging, a defect
 * audit                 view/audit.c: after the walk, before anything is published
 *
 * What is left out, and why it may be: the bytes of a page are independent of each other
 * but for the place of a piece that crosses the end of a slot, so a page has two halves,
 * copied one after the other; the store to live memory is one step, since a torn one is
 * wrong like a new one. A page of zeros, and any that is not the freeze's, is wrong. What
 * depends on the limit is left to chance: that there is no room, what moves and when. One
 * message of the kernel is read at a time. Memory is sequentially consistent.
 *
 * Switches: what takes part (MOVES, DROPS, EVICTION, FAILURES, LOSSES, ROUNDS) and
 * mistakes (WRONG_…), each of which must be found. `cases` says which of them are checked;
 * docs/TESTING.md what is still to be done.
 */
#ifndef READERS
#define READERS 2
#endif
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef PAGES
#define PAGES 2 /* or one, where the cost of two is too high */
#endif

/* What stands in a page of live memory. */
#define OLD 0   /* what stood there at the freeze */
#define NEW 1   /* anything else */

/* enum fault_duty */
#define PARKED 0
#define PRESERVED 1

/* enum phase, as far as it matters here; phases.pml has all of it. */
#define IDLE      0
#define SAVING    1
#define RELEASING 2

/* The index: an entry says where the page is. */
#define NONE      0
#define MOVING    1
#define BY_SERVER 2            /* in the spool; each writer has a place of its own */
#define BY_UPKEEP 3
#define RAW(s)    (4 + (s))
#define FIRST(s)  (6 + (s))    /* first piece of the log, in slot s */
#define FITS(s)   (8 + (s))    /* the second one, behind it */
#define ACROSS(s) (10 + (s))   /* … or half of it in the next slot */
#define IS_RAW(e)    ((e) == 4 || (e) == 5)
#define IS_PACKED(e) ((e) >= 6)

/* A slot has four cells: a raw page takes the first two, so does the first piece. */
#define CELL(s, i) cells[(s) * 4 + (i)]
#define RAW_BYTES(p)    (1 + (p))
#define PACKED_BYTES(p) (3 + (p))
#define WRONG_BYTES     5

/* Requests to the fault server. */
#define NO_REQUEST 0
#define POSTED     1
#define DONE       2

bit prot[2];        /* the page table's marks */
bit live[2];
bit fixed[2];       /* what is the past of it has been settled: see past_is_now() */
bit leaf;           /* the directory has an entry for the chunk of both pages */
bit mark[2];
byte entry[2];
byte cells[8];
bit used[2];        /* slots */
byte next[2];       /* slot_table: of the log */
byte log_last;      /* slot + 1 */
byte log_count;     /* pieces that begin in it */
byte spool[4];      /* by page * 2 + writer; 0: nothing there */

bit error;          /* view.error */
bit frozen;
byte phase;
byte watch;         /* snapshot.watches */
bit rescuing;
bit closed;         /* the descriptor is an event that never comes */
bit disarmed;       /* heap.disarmed, which is noted a moment later */
byte duty, on_duty;
bit nudge;          /* wake_event */

byte faults[2]; /* who waits in the kernel for which page + 1 */
bit told[2];    /* its message was read */

bit owner;          /* request_owner */
byte request;
byte request_page;
bit request_spooled;
bit request_failed;
bit held;           /* deferred_free.lock */

bit closing;        /* the pool is to come back */
byte inside;        /* readers that read */
bit freezes;        /* which it is, the last bit */
bit may_end;        /* no more snapshots */
bit wrong_save;     /* a reader has believed what was wrong */

#define lift(p) \
    if \
    :: !closed -> prot[p] = 0 \
    :: else \
    fi; \
    wake(p)
/* UFFDIO_WRITEPROTECT wakes who waits for the range. */
#define wake(p) \
    for (w : 0 .. 1) { \
        if \
        :: faults[w] == p + 1 -> faults[w] = 0; told[w] = 0 \
        :: else \
        fi \
    }

/* The instant of the freeze, for one page: when it is protected. Only the main thread
 * changes the keyspace, and it is in the freeze: any instant in it is right. */
#define past_is_now(p) \
    if \
    :: frozen && !fixed[p] -> live[p] = OLD; fixed[p] = 1 \
    :: else \
    fi

/* ---- reading ---------------------------------------------------------------------- */

/* view_read() has returned 0. */
inline believe(wrong) {
#ifdef LOSSES
    wrong_save = wrong_save || wrong;
#else
    assert(!wrong);
#endif
    wrong = 0
}

inline read_preserved(p) {
    do
    :: atomic { entry[p] != MOVING -> seen = entry[p] };
       assert(seen != NONE);
       if
       :: IS_RAW(seen) ->
          wrong = CELL(seen - 4, 0) != RAW_BYTES(p);
          wrong = wrong || CELL(seen - 4, 1) != RAW_BYTES(p)
       :: seen == BY_SERVER || seen == BY_UPKEEP ->
          wrong = spool[p * 2 + seen - 2] != RAW_BYTES(p)
       :: seen == FIRST(0) || seen == FIRST(1) ->
          wrong = CELL(seen - 6, 0) != PACKED_BYTES(p);
          wrong = wrong || CELL(seen - 6, 1) != PACKED_BYTES(p)
       :: seen == FITS(0) || seen == FITS(1) ->
          wrong = CELL(seen - 8, 2) != PACKED_BYTES(p);
          wrong = wrong || CELL(seen - 8, 3) != PACKED_BYTES(p)
       :: seen == ACROSS(0) || seen == ACROSS(1) ->
          wrong = CELL(seen - 10, 2) != PACKED_BYTES(p);
          wrong = wrong || CELL(next[seen - 10], 0) != PACKED_BYTES(p)
       fi;
       /* still_there(); what is in the spool never moves. */
       if
#ifdef WRONG_NO_RECHECK
       :: true -> break
#else
       :: entry[p] == seen || seen == BY_SERVER || seen == BY_UPKEEP -> break
       :: else -> wrong = 0
#endif
       fi
    od;
    seen = 0
}

inline read_page(p) {
    if
    :: mark[p] -> read_preserved(p)
    :: else ->
       wrong = live[p] != OLD;
       wrong = wrong || live[p] != OLD;
#ifndef WRONG_NO_SECOND_LOOK
       if
       :: mark[p] -> wrong = 0; read_preserved(p)
       :: else
       fi
#endif
    fi;
    if
    :: error -> wrong = 0
    :: else -> believe(wrong)
    fi
}

/* A read that spans both pages, of a chunk that may have nothing preserved. */
inline read_both() {
    if
    :: !leaf ->
       wrong = live[0] != OLD;
       wrong = wrong || live[1] != OLD;
       if
       :: leaf -> wrong = 0
       :: else ->
          if
          :: error -> wrong = 0
          :: else -> believe(wrong)
          fi
       fi
    :: else
    fi
}

/* Of the pool. */
proctype reader() {
    byte seen;
    bit wrong;
end:
    do
    :: atomic { phase == SAVING && !closing && !inside -> inside = 1 };
       do
       :: !closing && !error -> read_page(0)
#if PAGES > 1
       :: !closing && !error -> read_page(1)
#endif
       :: closing || error -> break
       od;
       inside = 0;
       closing || phase != SAVING || may_end
    :: may_end && phase == IDLE -> break
    od
}

/* ---- the saver -------------------------------------------------------------------- */

inline release() {
#ifndef WRONG_RELEASE_WITHOUT_FAILING
    error = 1;
#endif
    frozen = 0;
    /* snapshot_lift_protection() */
    i = 0;
    do
    :: i < PAGES -> atomic { lift(i); i++; w = 0 }
    :: else -> break
    od;
    i = 0;
    /* fault_server_disarm() */
    duty = PARKED;
    nudge = 1;
#ifndef WRONG_END_WITHOUT_WAITING
    on_duty == duty;
#endif
    /* preserved_end() */
    assert(!inside);
    atomic {
        leaf = 0;
        for (w : 0 .. 1) { mark[w] = 0; entry[w] = NONE; used[w] = 0; next[w] = 0 }
        for (w : 0 .. 7) { cells[w] = 0 }
        for (w : 0 .. 3) { spool[w] = 0 }
        log_last = 0; log_count = 0; w = 0
    }
}

proctype saver() {
    byte seen, i, w;
    bit wrong, ok;
end:
    do
    :: atomic { phase == SAVING -> ok = 1; closing = 0 };
       do
       :: !error -> read_page(0)
#if PAGES > 1
       :: !error -> read_page(1)
#endif
#ifdef SPANS
       :: !error -> read_both()
#endif
       :: break
       od;
       closing = 1;
#ifndef WRONG_RELEASE_EARLY
       !inside;
#endif
#ifdef LOSSES
#ifndef WRONG_NO_AUDIT
       for (i : 0 .. PAGES - 1) {
           if
           :: prot[i]
           :: else ->
              if
              :: mark[i]
              :: else -> ok = 0
              fi
           fi
       }
       i = 0;
#endif
#endif
       /* publish() */
       atomic { ok = ok && !error; assert(!ok || !wrong_save) };
       phase = RELEASING;
       release();
       atomic { wrong_save = 0; ok = 0; phase = IDLE }
    :: may_end && phase == IDLE -> break
    od
}

/* ---- threads of the server -------------------------------------------------------- */

inline post_and_wait() {
    request = POSTED;
#ifndef WRONG_REQUEST_WITHOUT_NUDGE
    nudge = 1;
#endif
    request == DONE;
    failed = request_failed;
    atomic { request = NO_REQUEST; request_failed = 0; request_page = 0; request_spooled = 0; owner = 0 }
}

inline store(p) {
    do
    :: atomic { !prot[p] -> live[p] = NEW };
       break
    :: atomic { prot[p] -> faults[me] = p + 1; told[me] = 0 };
       faults[me] == 0
    od
}

#ifdef DROPS
/* Gives up a page that it has freed since the freeze. Was it freed before, nothing in the
 * keyspace says what stands there: not so in a later freeze, therefore `freezes`. */
inline drop(p) {
    freed = freezes;
    if
    :: frozen ->
#ifndef WRONG_DROP_WITHOUT_REQUEST
       atomic { !owner -> owner = 1 };
       request_page = p;
       post_and_wait();
       failed = 0;
#endif
       atomic {
           if
           :: freed == freezes -> prot[p] = 0; live[p] = NEW
           :: else
           fi
       }
    :: else
    fi;
    freed = 0
}
#endif

proctype writer(byte me) {
    bit failed, freed;
end:
    do
    :: store(0)
#if PAGES > 1
    :: store(1)
#endif
#ifdef DROPS
    :: me == 1 && phase == SAVING -> drop(0)
#if PAGES > 1
    :: me == 1 && phase == SAVING -> drop(1)
#endif
#endif
    :: may_end && phase == IDLE -> break
    od
}

/* ---- the fault server ------------------------------------------------------------- */

/* slot_free(): from now on anything may be written to it. */
inline free_slot(s) {
    CELL(s, 0) = 0;
    CELL(s, 1) = 0;
    atomic { CELL(s, 2) = 0; CELL(s, 3) = 0; next[s] = 0; used[s] = 0 }
}

inline copy_to_slot(p, s) {
    used[s] = 1;
    CELL(s, 0) = (live[p] == OLD -> RAW_BYTES(p) : WRONG_BYTES);
    CELL(s, 1) = (live[p] == OLD -> RAW_BYTES(p) : WRONG_BYTES)
}

inline publish_first(p, where) {
    entry[p] = where;
    mark[p] = 1
}

/* preserved_put() */
inline put(p) {
    leaf = 1;
    if
    :: entry[p] != NONE
    :: else ->
       atomic { past_is_now(p) };
       if
       :: !used[0] -> copy_to_slot(p, 0); publish_first(p, RAW(0))
       :: used[0] && !used[1] -> copy_to_slot(p, 1); publish_first(p, RAW(1))
#ifdef MOVES
       :: true -> /* at the limit: to the spool */
          spool[p * 2] = (live[p] == OLD -> RAW_BYTES(p) : WRONG_BYTES);
          publish_first(p, BY_SERVER)
#endif
#ifdef FAILURES
       :: true -> error = 1 /* give_up() */
#ifdef BLOCKS
       :: true -> error || duty != PRESERVED /* wait_for_room() */
#endif
#endif
       fi
    fi
}

inline preserve_and_lift(p) {
#ifdef WRONG_LIFT_BEFORE_PUBLISHING
    atomic { lift(p); w = 0 };
#endif
    if
    :: error
    :: else -> put(p)
    fi;
    atomic { lift(p); w = 0 }
}

#ifdef MOVES
/* log_add(): page p, raw in slot s */
inline pack(p, s) {
    if
    :: log_last == 0 ->
#ifndef WRONG_NO_MOVING
       entry[p] = MOVING;
#endif
       CELL(s, 0) = PACKED_BYTES(p);
       CELL(s, 1) = PACKED_BYTES(p);
       log_last = s + 1; log_count = 1;
       entry[p] = FIRST(s)
    :: log_last && log_last != s + 1 && log_count == 1 ->
       last = log_last - 1;
       if
       :: CELL(last, 2) = PACKED_BYTES(p);
          CELL(last, 3) = PACKED_BYTES(p);
          log_count = 2;
#ifdef WRONG_FREE_BEFORE_PUBLISHING
          free_slot(s);
          entry[p] = FITS(last)
#else
          entry[p] = FITS(last);
          free_slot(s)
#endif
       ::
#ifndef WRONG_NO_MOVING
          entry[p] = MOVING;
#endif
          CELL(last, 2) = PACKED_BYTES(p);
          CELL(s, 0) = PACKED_BYTES(p);
          next[last] = s; log_last = s + 1; log_count = 0;
          entry[p] = ACROSS(last)
       fi;
       last = 0
    :: else
    fi
}

inline spool_raw(p, s) {
    spool[p * 2] = CELL(s, 0);
#ifdef WRONG_SPOOL_PLACE_AFTER_FREEING
    free_slot(s);
    entry[p] = BY_SERVER
#else
    entry[p] = BY_SERVER;
    free_slot(s)
#endif
}

/* The oldest slot of the log, with the piece that ends in the next one. */
inline spool_log(s) {
    for (i : 0 .. PAGES - 1) {
        if
        :: entry[i] == FIRST(s) || entry[i] == FITS(s) || entry[i] == ACROSS(s) ->
           spool[i * 2] = RAW_BYTES(i);
           entry[i] = BY_SERVER
        :: else
        fi
    }
    i = 0;
    atomic {
        if
        :: log_last == s + 1 -> log_last = 0; log_count = 0
        :: else -> log_count = 2 /* what is left of the next one has no piece */
        fi
    };
    free_slot(s)
}

inline move_something() {
    if
    :: IS_RAW(entry[0]) -> from = entry[0] - 4; pack(0, from)
    :: IS_RAW(entry[1]) -> from = entry[1] - 4; pack(1, from)
    :: IS_RAW(entry[0]) -> from = entry[0] - 4; spool_raw(0, from)
    :: IS_RAW(entry[1]) -> from = entry[1] - 4; spool_raw(1, from)
    :: entry[0] == FIRST(0) || entry[1] == FIRST(0) -> spool_log(0)
    :: entry[0] == FIRST(1) || entry[1] == FIRST(1) -> spool_log(1)
    fi;
    from = 0
}
#define MOVABLE (IS_RAW(entry[0]) || IS_RAW(entry[1]) || \
                 entry[0] == FIRST(0) || entry[1] == FIRST(0) || \
                 entry[0] == FIRST(1) || entry[1] == FIRST(1))
#endif

/* audit_check(): of what was copied for a request. */
inline check_copy(p) {
#ifdef LOSSES
#ifndef WRONG_COPIES_UNCHECKED
    if
    :: copied && !error && !prot[p] -> error = 1
    :: else
    fi;
#endif
#endif
    copied = 0
}

inline serve_request(serving) {
    if
#ifdef WRONG_STALE_DUTY
    :: request == POSTED ->
#else
    :: request == POSTED && (serving || duty != PRESERVED) ->
#endif
       if
       :: !serving || error
       :: else ->
          copied = entry[request_page] == NONE;
          if
          :: !request_spooled -> put(request_page)
          :: else -> /* preserved_put_spooled() */
             leaf = 1;
             if
             :: entry[request_page] == NONE -> publish_first(request_page, BY_UPKEEP)
#ifdef WRONG_SPOOLED_REPLACES
             :: else -> entry[request_page] = BY_UPKEEP
#else
             :: else
#endif
             fi
          fi;
          check_copy(request_page)
       fi;
       request_failed = !serving || error;
       request = DONE
    :: else
    fi
}

#define FAULT_OF(n) (faults[n] != 0 && !told[n])
#define ANY_FAULT   (!closed && (FAULT_OF(0) || FAULT_OF(1)))

inline read_message() {
    page = 0;
    if
    :: atomic { !closed && FAULT_OF(0) -> page = faults[0]; told[0] = 1 }
    :: atomic { !closed && FAULT_OF(1) -> page = faults[1]; told[1] = 1 }
    :: else
    fi
}

proctype server() {
    byte now, page, last, from, i, w;
    bit copied;
    do
    :: /* the top of serve() */
       atomic { now = duty; on_duty = now };
       if
       :: now == PRESERVED ->
          read_message();
          if
          :: page -> page--; preserve_and_lift(page); page = 0
          :: else
          fi;
          serve_request(1)
       :: now == PARKED -> serve_request(0)
       fi;
       /* wait_for_work() */
end:   if
       :: atomic { nudge -> nudge = 0 }
       :: now != PARKED && ANY_FAULT
#ifdef MOVES
       :: now == PRESERVED && !error && MOVABLE -> move_something()
#endif
       fi
    od
}

/* ---- the upkeep thread ------------------------------------------------------------------- */

#ifdef EVICTION
inline evict(p) {
    spooled = 0;
    failed = 0;
#ifdef WRONG_DROP_UNKEPT
    atomic { prot[p] = 0; live[p] = NEW };
#endif
    if
    :: mark[p]
    :: else ->
       spool[p * 2 + 1] = (live[p] == OLD -> RAW_BYTES(p) : WRONG_BYTES);
       atomic { !owner -> owner = 1 };
       request_spooled = 1;
       request_page = p;
       post_and_wait()
    fi;
    if
    :: !failed -> atomic { prot[p] = 0; live[p] = NEW }
    :: else
    fi;
    failed = 0
}

proctype upkeep() {
    bit spooled, failed;
end:
    do
    :: phase == SAVING ->
       atomic { !held -> held = 1 };
       if
       :: phase == SAVING -> evict(0)
#if PAGES > 1
       :: phase == SAVING -> evict(1)
#endif
       :: phase != SAVING
       fi;
       held = 0
    :: may_end && phase == IDLE -> break
    od
}
#endif

/* ---- failures --------------------------------------------------------------------- */

#ifdef FAILURES
inline disarm_now() {
    atomic {
        prot[0] = 0; prot[1] = 0;
        for (w : 0 .. 1) { faults[w] = 0; told[w] = 0 }
        w = 0;
        closed = 1
    };
    disarmed = 1
}

#define IS_OVER (watch != seen || (!frozen && phase == IDLE))

proctype watchdog() {
    byte w;
    byte seen;
end:
    do
    :: atomic { watch != seen -> seen = watch } /* a freeze has begun */
    :: !IS_OVER -> /* rescue_pull() */
       rescuing = 1;
#ifndef WRONG_LATE_WATCHDOG
       if
       :: !IS_OVER ->
#endif
#ifndef WRONG_DISARM_BEFORE_FAILING
          error = 1;
          disarm_now()
#else
          disarm_now();
          error = 1
#endif
#ifndef WRONG_LATE_WATCHDOG
       :: else
       fi
#endif
       ;
       rescuing = 0
    :: phase == SAVING -> error = 1 /* saver_kill() */
    :: may_end && phase == IDLE -> break
    od
}
#endif

#ifdef LOSSES
/* Not of a page for which a fault waits: see "What remains" in view/audit.h. */
#ifdef WRONG_LOST_IN_A_FAULT
#define FAULT_WAITS(p) false
#else
#define FAULT_WAITS(p) (faults[0] == p + 1 || faults[1] == p + 1)
#endif
proctype marks_go() {
end:
    do
    :: atomic { phase == SAVING && prot[0] && !FAULT_WAITS(0) -> prot[0] = 0 }
    :: atomic { phase == SAVING && prot[1] && !FAULT_WAITS(1) -> prot[1] = 0 }
    :: may_end && phase == IDLE -> break
    od
}
#endif

/* ---- the main thread: freeze ------------------------------------------------------ */

inline protect() {
    i = 0;
    freezes = 1 - freezes;
    do
    :: i < PAGES && !failed ->
       atomic {
           if
           :: closed -> failed = 1
           :: else -> prot[i] = 1; past_is_now(i)
           fi;
           i++
       }
    :: else -> break
    od;
    i = 0
}

inline thaw() {
    frozen = 0;
    error = 1;
    do
    :: i < PAGES -> atomic { lift(i); i++; w = 0 }
    :: else -> break
    od;
    i = 0;
    duty = PARKED;
    nudge = 1;
    on_duty == PARKED;
    atomic {
        leaf = 0;
        for (w : 0 .. 1) { mark[w] = 0; entry[w] = NONE; used[w] = 0; next[w] = 0 }
        for (w : 0 .. 7) { cells[w] = 0 }
        for (w : 0 .. 3) { spool[w] = 0 }
        log_last = 0; log_count = 0; w = 0
    }
}

inline freeze() {
    failed = 0;
#ifdef EVICTION
#ifndef WRONG_FREEZE_WITHOUT_UPKEEP
    !held; /* deferred_free_end() */
#endif
#endif
    /* heap_open(): what was disarmed is opened anew */
    atomic {
        if
        :: disarmed -> disarmed = 0; closed = 0
        :: else
        fi
    };
    error = 0;
    atomic { frozen = 1; fixed[0] = 0; fixed[1] = 0 };
    /* fault_server_arm() */
    duty = PRESERVED;
    nudge = 1;
    watch++;
#ifndef WRONG_LATE_WATCHDOG
    failed = rescuing;
#endif
    protect(); /* nothing of it if somebody is rescuing */
    if
    :: failed -> thaw()
    :: else -> phase = SAVING
    fi;
    failed = 0
}

proctype main_thread() {
    byte i, w;
    bit failed;
#ifdef ROUNDS
    byte round;
    do
    :: round < ROUNDS && phase == IDLE -> freeze(); round++
    :: phase == IDLE -> break
    od;
#else
    freeze();
    phase == IDLE;
#endif
    may_end = 1
}

init {
    atomic {
        run main_thread();
        run saver();
#if READERS > 1
        run reader();
#endif
        run writer(0);
#if WRITERS > 1
        run writer(1);
#endif
        run server();
#ifdef EVICTION
        run upkeep();
#endif
#ifdef FAILURES
        run watchdog();
#endif
#ifdef LOSSES
        run marks_go();
#endif
    }
}
