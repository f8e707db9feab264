/*
 * checkpoint_options.h: the command line of virtcheckpointd
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_OPTIONS_H
#define VIR_CHECKPOINT_OPTIONS_H

#include <glib.h>

typedef struct virCheckpointOptions {
    gchar *socket;        /* of our read-write socket, never NULL */
    gboolean socketGiven; /* not the default one: its folder is the caller's business */
    gchar *backend;       /* or NULL: to be found */
    gchar *stateDir;      /* never NULL */
    gchar *overlayDir;    /* or NULL */
    guint timeoutSec;     /* 0: never leave */
    gboolean verbose;
    gboolean supervise;
} virCheckpointOptions;

typedef enum {
    VIR_CHECKPOINT_OPTIONS_RUN,
    VIR_CHECKPOINT_OPTIONS_DONE,  /* --help, --version: answered */
    VIR_CHECKPOINT_OPTIONS_WRONG, /* the reason is on stderr */
    VIR_CHECKPOINT_OPTIONS_LAST
} virCheckpointOptionsOutcome;

/** Reads @argv, the environment's defaults and the built-in ones. */
virCheckpointOptionsOutcome
virCheckpointOptionsParse(virCheckpointOptions *options, int argc, char **argv);
void
virCheckpointOptionsClear(virCheckpointOptions *options);

#endif
