/*
 * virsh_options.h: the options of blockcopy, stock's and ours
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIRSH_OPTIONS_H
#define VIRSH_OPTIONS_H

#include <glib.h>

typedef enum {
    VIR_CHECKPOINT_VIRSH_OPTION_DOMAIN,
    VIR_CHECKPOINT_VIRSH_OPTION_PATH,
    VIR_CHECKPOINT_VIRSH_OPTION_DEST,
    VIR_CHECKPOINT_VIRSH_OPTION_BANDWIDTH,
    VIR_CHECKPOINT_VIRSH_OPTION_SHALLOW,
    VIR_CHECKPOINT_VIRSH_OPTION_REUSE_EXTERNAL,
    VIR_CHECKPOINT_VIRSH_OPTION_RAW,
    VIR_CHECKPOINT_VIRSH_OPTION_BLOCKDEV,
    VIR_CHECKPOINT_VIRSH_OPTION_WAIT,
    VIR_CHECKPOINT_VIRSH_OPTION_VERBOSE,
    VIR_CHECKPOINT_VIRSH_OPTION_TIMEOUT,
    VIR_CHECKPOINT_VIRSH_OPTION_PIVOT,
    VIR_CHECKPOINT_VIRSH_OPTION_FINISH,
    VIR_CHECKPOINT_VIRSH_OPTION_ASYNC,
    VIR_CHECKPOINT_VIRSH_OPTION_XML,
    VIR_CHECKPOINT_VIRSH_OPTION_FORMAT,
    VIR_CHECKPOINT_VIRSH_OPTION_GRANULARITY,
    VIR_CHECKPOINT_VIRSH_OPTION_BUF_SIZE,
    VIR_CHECKPOINT_VIRSH_OPTION_BYTES,
    VIR_CHECKPOINT_VIRSH_OPTION_TRANSIENT_JOB,
    VIR_CHECKPOINT_VIRSH_OPTION_SYNCHRONOUS_WRITES,
    VIR_CHECKPOINT_VIRSH_OPTION_PRINT_XML,
    VIR_CHECKPOINT_VIRSH_OPTION_BITMAP,
    VIR_CHECKPOINT_VIRSH_OPTION_CHECKPOINT,
    VIR_CHECKPOINT_VIRSH_OPTION_VERIFY,
    VIR_CHECKPOINT_VIRSH_OPTION_END_CHECKPOINTS,
    VIR_CHECKPOINT_VIRSH_OPTION_LAST
} virCheckpointVirshOption;

typedef struct {
    gchar *values[VIR_CHECKPOINT_VIRSH_OPTION_LAST]; /* "" for a flag, NULL: absent */
    gboolean ours;  /* --bitmap, --checkpoint... was among the words */
    gboolean help;  /* --help was met first */
    gchar *message; /* what is wrong with the words, one line or more, or NULL */
} virCheckpointVirshOptions;

/**
 * virCheckpointVirshOptionsParse:
 * @words: what follows the word blockcopy, NULL-terminated
 *
 * Returns: (transfer full): the options.  When there is a @message it is stock's; the
 * remaining words were then looked at for @ours only.
 */
virCheckpointVirshOptions *
virCheckpointVirshOptionsParse(const gchar *const *words);
void
virCheckpointVirshOptionsFree(virCheckpointVirshOptions *options);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointVirshOptions, virCheckpointVirshOptionsFree)

/** Returns: (transfer none) (nullable): the value of @option. */
const gchar *
virCheckpointVirshOptionsGet(const virCheckpointVirshOptions *options,
                             virCheckpointVirshOption option);
gboolean
virCheckpointVirshOptionsHas(const virCheckpointVirshOptions *options,
                             virCheckpointVirshOption option);

/**
 * virCheckpointVirshOptionsMergeHelp:
 * @text: what stock prints for "help blockcopy"
 *
 * Returns: (transfer full): the same with our options in synopsis and list.  A text
 * that has an option of that name already gets it no second time.
 */
gchar *
virCheckpointVirshOptionsMergeHelp(const gchar *text);

#endif
