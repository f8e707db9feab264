/*
 * virsh_args.h: the command line as stock virsh reads it
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIRSH_ARGS_H
#define VIRSH_ARGS_H

#include <glib.h>

/** What has to be done with a command line. */
typedef enum {
    VIR_CHECKPOINT_VIRSH_COMMAND_AS_IS,  /* stock, no connection or no command */
    VIR_CHECKPOINT_VIRSH_COMMAND_STOCK,  /* stock, through the gateway if it can be */
    VIR_CHECKPOINT_VIRSH_COMMAND_NEEDED, /* stock, through the gateway or not at all */
    VIR_CHECKPOINT_VIRSH_COMMAND_BLOCKCOPY, /* ours */
    VIR_CHECKPOINT_VIRSH_COMMAND_CHECK,     /* checkpoint-check */
    VIR_CHECKPOINT_VIRSH_COMMAND_CHECK_HELP,
    VIR_CHECKPOINT_VIRSH_COMMAND_HELP,  /* stock's help on blockcopy and ours */
    VIR_CHECKPOINT_VIRSH_COMMAND_BATCH, /* what is ours in a command string */
    VIR_CHECKPOINT_VIRSH_COMMAND_LAST
} virCheckpointVirshCommand;

typedef struct {
    int argc;
    gchar **argv;  /* borrowed from main */
    gint first;    /* index of the first word of the command; argc: interactive */
    gint uriIndex; /* the argument that holds the value of the last -c, or -1 */
    gsize uriOffset;
    gboolean readonly;
    gboolean quiet;
    gboolean timing;
    gint keepaliveInterval; /* -1: not given */
    gint keepaliveCount;    /* -1: not given */
    const gchar *logFile;   /* borrowed, or NULL */
    gboolean asIs;          /* -h, -v, -V, or what stock will complain about */
} virCheckpointVirshArgs;

/**
 * virCheckpointVirshArgsParse:
 * @argc, @argv: as main got them; kept, not changed
 * @args: (out): always filled
 *
 * Reads stock's global options, in stock's way.  What it cannot make sense of becomes
 * @args->asIs: stock has the words for it.  Thread: main (getopt).
 */
void
virCheckpointVirshArgsParse(int argc, gchar **argv, virCheckpointVirshArgs *args);

/** Returns: (transfer none) (nullable): the value of -c, which may be empty. */
const gchar *
virCheckpointVirshArgsUri(const virCheckpointVirshArgs *args);

/**
 * virCheckpointVirshArgsWithUri:
 * @uri: replaces the value of the last -c, or NULL to change nothing
 *
 * Returns: (transfer full): a NULL-terminated copy of all arguments.
 */
gchar **
virCheckpointVirshArgsWithUri(const virCheckpointVirshArgs *args, const gchar *uri);

/** Tells what to do with the command of @args. */
virCheckpointVirshCommand
virCheckpointVirshArgsClassify(const virCheckpointVirshArgs *args);

/**
 * virCheckpointVirshArgsSplit:
 * @text: a command string as in virsh 'list; echo "a b"'
 *
 * Returns: (transfer full) (element-type GStrv): the words of each command, quotes
 * and comments taken away; NULL if a quote is not closed.
 */
GPtrArray *
virCheckpointVirshArgsSplit(const gchar *text);

#endif
