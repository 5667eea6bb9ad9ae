/* Who ends a save: a model for spin of the phases, and of who may still touch the output.
 *
 * What is here          what it stands for (src/)
 * saver                 dump.c save_to_file(), create_file(), publish(); saver.c run(),
 *                       close_output()
 * main_thread           save.c save_begin(), begin_saving(); saver.c saver_kill(), cancel(),
 *                       saver_wait(); a save that has ended is reaped, and the next one
 *                       begins
 * watchdog, fault       watchdog.c give_snapshot_up(); rdb_uffd.c snapshot_failed(): both
 *                       snapshot.c snapshot_cancel_output()
 * output                rdb/output.c: open, cancelled, closed; the dump's two files
 *
 * What must hold: a dump is published or given up, not both; a kill that comes in time
 * (whose CAS succeeded) leaves none; whose save was cancelled has no file made afterwards;
 * the output is not touched once it was closed; a kill, a wait and the save all end.
 */
mtype = { NONE, BEGUN, CREATING, CANCELLED, PUBLISHING, RELEASING }; /* BEGUN: SAVING */

mtype phase = NONE;
byte cancellers;
bit output;        /* it is there */
bit cancelled;     /* rdb_output_cancel() */
bit error;         /* view.error */
bit given_up;      /* somebody was told: this save is cancelled */
bit in_time;       /* … and not while its file was being made */
bit file;          /* the temporary file */
bit published;
byte begun, ended;
bit over;

/* A CAS of the phase. */
inline move(from, to, done) {
    atomic {
        if
        :: phase == from -> phase = to; done = 1
        :: else -> done = 0
        fi
    }
}

/* snapshot_cancel_output() */
inline cancel_output() {
#ifndef WRONG_CANCEL_UNCOUNTED
    cancellers++;
#endif
    if
    :: phase != NONE ->
       assert(output);
       cancelled = 1
    :: else
    fi;
#ifndef WRONG_CANCEL_UNCOUNTED
    cancellers--
#endif
}

proctype saver() {
    bit moved, ok;
    do
    :: begun != ended ->
       ok = 1;
       /* create_file() */
       move(BEGUN, CREATING, moved);
       ok = moved;
       if
       :: ok ->
          assert(!in_time);
          file = 1;
          move(CREATING, BEGUN, moved);
          ok = moved
       :: else
       fi;
       /* write_dump(): waits for the disk until it is cancelled, or writes */
       if
       :: ok ->
          if
          :: cancelled -> ok = 0
          :: error -> ok = 0
          :: true
          :: true -> ok = 0 /* the disk is full */
          fi
       :: else
       fi;
       /* publish() */
       if
       :: ok && !error ->
#ifdef WRONG_PUBLISH_WITHOUT_PHASE
          moved = phase == BEGUN;
          phase = PUBLISHING;
#else
          move(BEGUN, PUBLISHING, moved);
#endif
          if
          :: moved ->
             assert(output);
             if
             :: published = 1
             :: skip /* rename() fails */
             fi
          :: else -> ok = 0
          fi
       :: else -> ok = 0
       fi;
       phase = RELEASING;
       /* tell_server(), release_memory(): a transfer waits for its reader */
       if
       :: cancelled
       :: true
       fi;
       assert(output);
       error = 1;
#ifdef WRONG_CLOSE_BEFORE_PHASE
       cancellers == 0;
       output = 0;
       phase = NONE;
#else
       phase = NONE;
#ifndef WRONG_CLOSE_WITHOUT_WAITING
       cancellers == 0;
#endif
       output = 0;
#endif
       ended = begun
    :: over && begun == ended -> break
    od
}

/* saver_kill(): between two saves there is no child to kill. */
inline kill_save() {
    do
    :: true ->
       move(BEGUN, CANCELLED, moved);
       if
       :: moved -> break
       :: else
       fi;
       if
       :: true -> /* has waited long enough for a file that is being made */
#ifdef WRONG_CANCEL_WHILE_PUBLISHING
          move(PUBLISHING, CANCELLED, moved);
          if
          :: moved -> break
          :: else
          fi;
#endif
          move(CREATING, CANCELLED, moved);
          late = moved
       :: true
       fi;
       if
       :: moved -> break
       :: else
       fi;
       seen = phase;
       if
       :: seen == CREATING || seen == PUBLISHING -> phase != seen || seen == CREATING
       :: seen == BEGUN
       :: else -> moved = 0; break
       fi
    od;
    if
    :: moved ->
       assert(!published);
       error = 1;
       given_up = 1;
       in_time = !late
    :: else
    fi;
    if
    :: moved || phase == RELEASING -> cancel_output()
    :: else
    fi;
    moved = 0; late = 0; seen = NONE
}

proctype main_thread() {
    bit moved, late, killed;
    mtype seen = NONE;
    byte saves;
    do
    :: saves < 2 ->
       output = 1; cancelled = 0; error = 0; given_up = 0; in_time = 0; file = 0; published = 0;
       saves++;
       phase = BEGUN;
       begun = 1 - begun;
       if
       :: kill_save()
       :: true
       fi;
       /* saver_wait(): the server reaps it */
       begun == ended;
       assert(!(given_up && published));
       assert(phase == NONE && !output)
    :: break
    od;
    over = 1
}

/* Any thread that gives a snapshot up: late, perhaps, or when the next one has begun. */
proctype watchdog() {
end:
    do
    :: phase != NONE ->
       error = 1;
       cancel_output()
    :: over -> break
    od
}

init {
    atomic {
        run main_thread();
        run saver();
        run watchdog();
        run watchdog() /* the fault server */
    }
}
