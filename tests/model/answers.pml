/* Who waits is answered, whoever hangs: a model for spin of the watchdog, with what must
 * happen in the end. Not what is read or written: that is in protocol.pml.
 *
 * What is here          what it stands for (src/)
 * fault_server          view/fault_server.c serve(), serve_once(), serve_fault(),
 *                       wait_for_work(); before it reads a fault and afterwards it may hang,
 *                       for ever or not
 * watchdog              snapshot/watchdog.c watchdog(), watch(), is_waited_for();
 *                       rescue.c rescue_pull(), rescue_end_watched()
 * saver                 snapshot/saver.c run(), release_memory(), end_child();
 *                       snapshot/dump.c save_to_file(); it may hang in the walk and in
 *                       rename()
 * main_thread           save.c save_begin(), begin_saving(); freeze.c freeze(), thaw(),
 *                       freeze_again(); it writes; saver.c saver_kill(), saver_wait()
 *
 * One save, whose freeze may fail, and fail again; one page stands for all. A wait of so many
 * seconds is one that may end. The watchdog's looks are counted, not timed: it may take who
 * is slow for one who hangs.
 *
 * What must hold, if every thread that does not hang goes on in the end (weak fairness): who
 * has faulted is answered; a freeze ends, a kill ends; and the child does whose fault
 * server was given up, though its saver hangs.
 * Not here: the memory's order, requests for what is given back, the policy "block", and a
 * rescue that comes too late (protocol.pml).
 */
mtype = { NONE, SAVING, PUBLISHING, CANCELLED, RELEASING };
mtype = { PARKED, PRESERVED };
mtype = { NOT_YET, BY_SAVER, LEFT, RETURNED };

#define LOOKS 1

bit protected;              /* the page's mark */
bit unread;                 /* a fault that the kernel has told nobody yet */
bit waits;                  /* the main thread is in a fault */
bit disarmed;               /* the descriptor is closed */
bit error;                  /* view.error */
bit frozen, missing, cancelled, nudged, beats, busy;
byte watches;
mtype duty = PARKED, on_duty = PARKED, phase = NONE, ending = BY_SAVER;
bit begun, child;
bit freezing, killing;      /* the main thread is in it */

#define over(seen) (watches != seen || (!frozen && phase == NONE))
#ifdef WRONG_UNREAD_ONLY
#define waited_for unread
#else
#define waited_for (unread || busy || on_duty != duty)
#endif

ltl main_answered { [] (waits -> <> !waits) }
ltl freeze_ends { [] (freezing -> <> !freezing) }
ltl kill_ends { [] (killing -> <> !killing) }
ltl child_ends { [] ((child && missing) -> <> !child) }

/* It wakes who waits, also for what was not read. */
inline lift() {
    protected = 0; waits = 0; unread = 0
}

inline hang() {
    do
    :: break
    :: true -> true
    od
}

inline write() {
    atomic {
        if
        :: protected -> waits = 1; unread = 1
        :: !protected
        fi
    }
    !waits
}

inline set_duty(which) {
    duty = which;
    nudged = 1
}

inline wait_until_parked() {
    on_duty == PARKED || missing
}

proctype fault_server() {
    mtype wanted;
    busy = 1;
    do
    :: true ->
       atomic { wanted = duty; on_duty = wanted; beats = 1 - beats }
       if
       :: wanted == PRESERVED ->
          hang(); /* stuck_server */
          if
          :: atomic { unread -> unread = 0 }
             if
             :: !error -> hang() /* hung_server */
             :: else
             fi;
             atomic { lift(); beats = 1 - beats }
          :: else
          fi
       :: else
       fi;
       atomic { busy = 0; wanted = PARKED }
       atomic { (nudged || (on_duty == PRESERVED && unread)) -> busy = 1; nudged = 0 }
    od
}

inline rescue_pull(seen) {
    d_step {
        if
        :: !over(seen) ->
           error = 1; disarmed = 1;
           protected = 0; waits = 0; unread = 0;
#ifndef WRONG_NOBODY_MISSING
           missing = 1;
#endif
           cancelled = (phase != NONE)
        :: else
        fi
    }
}

inline end_child() {
    atomic {
        if
        :: ending == NOT_YET -> ending = LEFT; child = 0
        :: else
        fi
    }
}

proctype watchdog() {
    byte seen, stuck, absent;
    bit last;
    do
    :: atomic { watches != seen -> seen = watches; stuck = 0; absent = 0 }
       do
       :: over(seen) -> break
       :: else ->
          d_step {
              nudged = 1;
              if
              :: beats == last && waited_for && !missing -> stuck = (stuck < LOOKS -> stuck + 1 : LOOKS)
              :: else -> stuck = 0
              fi;
              last = beats;
#ifndef WRONG_CHILD_UNWATCHED
              absent = (missing && absent < LOOKS -> absent + 1 : absent)
#endif
          }
          if
          :: stuck == LOOKS -> rescue_pull(seen)
          :: else
          fi;
          if
          :: absent == LOOKS && !over(seen) -> end_child()
          :: else
          fi
       od
    od
}

proctype saver() {
    bit ok;
    do
    :: atomic { begun -> begun = 0; ok = 1 }
       hang();
       atomic {
           if
           :: ok = !error && !cancelled
           :: true
           fi;
           if
           :: ok && phase == SAVING -> phase = PUBLISHING
           :: else -> ok = 0
           fi
       }
       if
       :: ok -> hang() /* hung_rename */
       :: else
       fi;
       atomic { phase = RELEASING; error = 1; frozen = 0; lift(); set_duty(PARKED) }
       wait_until_parked();
       atomic {
           phase = NONE;
           if
           :: ending == NOT_YET -> ending = BY_SAVER; child = 0
           :: else -> ending = RETURNED
           fi;
           ok = 0
       }
    od
}

/* It fails where a mapping was replaced, or for any other reason. */
inline freeze(again) {
    atomic {
        error = 0; disarmed = 0; cancelled = 0; failed = 0;
        frozen = 1;
        set_duty(PRESERVED);
#ifdef WRONG_SECOND_UNWATCHED
        watches = (again -> watches : watches + 1)
#else
        watches++
#endif
    }
    atomic { protected = !disarmed; failed = disarmed }
    atomic {
        if
        :: failed = 1
        :: true
        fi;
        if
        :: failed -> lift() /* heap_protect() takes back what it did */
        :: else
        fi
    }
    /* thaw() */
    if
    :: failed ->
       atomic {
#ifdef WRONG_THAW_UNWATCHED
           frozen = 0;
#endif
           error = 1;
           set_duty(PARKED)
       }
       wait_until_parked();
       frozen = 0
    :: else
    fi
}

#define obstacle (phase != NONE || ending == LEFT || missing)

inline kill_save() {
    killing = 1;
    do
    :: atomic { phase == SAVING -> phase = CANCELLED; error = 1 }
       break
#ifndef WRONG_KILL_WAITS
    :: phase == PUBLISHING -> break /* it has waited long enough */
#endif
    :: phase != SAVING && phase != PUBLISHING -> break
    od;
    cancelled = 1;
    /* saver_wait() */
    if
    :: !child
#ifndef WRONG_REAP_WAITS
    :: child -> end_child()
#endif
    fi;
    killing = 0
}

proctype main_thread() {
    bit failed;
    freezing = 1;
    freeze(0);
    if
    :: failed && !obstacle -> freeze(1)
    :: else
    fi;
    freezing = 0;
    if
    :: !failed ->
       atomic { phase = SAVING; ending = NOT_YET; child = 1; begun = 1 }
       write();
#ifdef KILL
       kill_save()
#endif
    :: else /* a real fork */
    fi
}

init {
    atomic {
        run main_thread();
        run saver();
        run fault_server();
        run watchdog()
    }
}
