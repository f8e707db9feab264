/*
 * checkpoint_monitor.h: one QMP peer: a guest through libvirt, or a storage daemon
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_MONITOR_H
#define VIR_CHECKPOINT_MONITOR_H

#include <libvirt/libvirt.h>

#include "checkpoint_json.h"

/**
 * A QMP peer.  Commands are synchronous; every one is logged (virCheckpointLogQmp)
 * and checked against the hard rules first (checkpoint_qmp.h), so that no caller can
 * send what kills a guest's QEMU.  Thread: one at a time.
 */
typedef struct virCheckpointMonitor virCheckpointMonitor;

typedef struct virCheckpointMonitorOps {
    /** One command as text -> reply as text. */
    gchar *(*run)(gpointer peer, const gchar *command, GError **error);
    /** The same with one descriptor (borrowed); NULL if the peer cannot take any. */
    gchar *(*runWithFd)(gpointer peer, const gchar *command, int fd, GError **error);
    void (*free)(gpointer peer);
} virCheckpointMonitorOps;

/* A monitor is one thread's at a time: it remembers how its last command ended. */
virCheckpointMonitor *
virCheckpointMonitorNew(const virCheckpointMonitorOps *ops,
                        gpointer peer,
                        const gchar *name);
void
virCheckpointMonitorFree(virCheckpointMonitor *monitor);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointMonitor, virCheckpointMonitorFree)

/**
 * virCheckpointMonitorBorrow:
 * @monitor: outlives what is returned; another thread may be using it
 *
 * The same peer for a thread that asks while another one works: how the commands of
 * either end is not mixed up with the other's.  The peer has to stand that; storage
 * daemons do.
 *
 * Returns: (transfer full): a monitor whose end leaves the peer alone.
 */
virCheckpointMonitor *
virCheckpointMonitorBorrow(const virCheckpointMonitor *monitor);

/** A running guest, through virDomainQemuMonitorCommand(WithFiles). Takes a reference
 * of @domain. */
virCheckpointMonitor *
virCheckpointMonitorNewDomain(virDomainPtr domain, GError **error);

/** How a storage daemon is started; all zero: without network, without files of ours.
 */
typedef struct virCheckpointStorageDaemonOptions {
    const int *fds; /* descriptors that it inherits, under their numbers */
    guint fdCount;
    gboolean network;    /* an image lies behind the network */
    gboolean orderly;    /* when we die it closes its images; else it is killed */
    const gchar *served; /* disks that are on a server, for errors; or NULL */
    gint *pid; /* gets its process, atomically, as soon as there is one; or NULL */
} virCheckpointStorageDaemonOptions;

/**
 * virCheckpointMonitorNewStorageDaemon:
 * @argv: further arguments after the program's name, NULL-terminated (blockdevs), or
 * NULL
 * @options: (nullable)
 *
 * A qemu-storage-daemon started for this monitor and ended with it, also when we die,
 * spoken to over a private socket pair.  Freeing the monitor returns when it has closed
 * its images.  An argument that it does not take is VIR_ERR_OPERATION_FAILED with its
 * reason.
 */
virCheckpointMonitor *
virCheckpointMonitorNewStorageDaemon(const gchar *const *argv,
                                     const virCheckpointStorageDaemonOptions *options,
                                     GError **error);
/** Those that a killed daemon left and that have one of @locks (gchar*) open get as
 * long as we give our own; in the background.  Once, before we start the first one. */
void
virCheckpointMonitorEndStorageDaemons(GPtrArray *locks);

/**
 * virCheckpointMonitorRun:
 * @command: QMP command name; @arguments: (transfer full) (nullable)
 *
 * Returns: (transfer full): the "return" member.  A QMP error is
 * VIR_ERR_OPERATION_FAILED "COMMAND: desc"; @error's message ends with QEMU's text.  A
 * peer that is gone is what libvirt says (VIR_ERR_OPERATION_INVALID).
 */
virCheckpointJson *
virCheckpointMonitorRun(virCheckpointMonitor *monitor,
                        const gchar *command,
                        virCheckpointJson *arguments,
                        GError **error);

/** As Run, for who only wants to know whether it worked. */
gboolean
virCheckpointMonitorDo(virCheckpointMonitor *monitor,
                       const gchar *command,
                       virCheckpointJson *arguments,
                       GError **error);

/**
 * virCheckpointMonitorQueryNodes:
 *
 * The only way to send query-named-block-nodes (flat).  While a guest's QEMU has a
 * "stream" job (a block pull) it waits until that is dismissed, some seconds at most,
 * and then fails with VIR_ERR_OPERATION_INVALID: QEMU 7.2 dies of that question when
 * such a job is concluded, and so does the guest.
 *
 * Returns: (transfer full): the reply.
 */
virCheckpointJson *
virCheckpointMonitorQueryNodes(virCheckpointMonitor *monitor, GError **error);

/**
 * virCheckpointMonitorAddFd:
 * Hands @fd (borrowed) over as /dev/fdset/@set, which is set before QEMU is asked: the
 * descriptor may be there whatever it answers.  For a storage daemon 7.2, which has no
 * add-fd, FALSE with VIR_ERR_OPERATION_UNSUPPORTED: open by path there.
 */
gboolean
virCheckpointMonitorAddFd(virCheckpointMonitor *monitor,
                          int fd,
                          guint64 *set,
                          GError **error);
/** remove-fd; a set that is not there is success. */
gboolean
virCheckpointMonitorRemoveFd(virCheckpointMonitor *monitor,
                             guint64 set,
                             GError **error);
/** Removes fdsets of ours that no node uses: an operation that died left them. */
gboolean
virCheckpointMonitorSweepFds(virCheckpointMonitor *monitor, GError **error);
/**
 * TRUE if the last command was answered: when it failed, then QEMU refused it and
 * nothing happened.  FALSE: nobody knows whether it ran.
 */
gboolean
virCheckpointMonitorAnswered(const virCheckpointMonitor *monitor);
/** TRUE when descriptors can be handed over. */
gboolean
virCheckpointMonitorHasFds(virCheckpointMonitor *monitor);

#endif
