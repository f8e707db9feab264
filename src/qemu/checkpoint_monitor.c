/*
 * checkpoint_monitor.c: one QMP peer
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: everything that we ask of a QEMU goes through virCheckpointMonitorRun(), so
 * that the hard rules (checkpoint_qmp.h) are checked and each command is logged in one
 * place.  The peer behind it is a guest reached through libvirt's monitor passthrough,
 * a storage daemon of our own (checkpoint_monitor_qsd.c), or a test's.
 *
 * A command ends in one of three ways: done; refused by QEMU, which did nothing then;
 * or unknown, because the peer went away.  Callers that must tell the last two apart
 * ask virCheckpointMonitorAnswered().
 */

#include "config.h"

#include <libvirt/libvirt-qemu.h>

#include "checkpoint_domain.h"
#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_log.h"
#include "checkpoint_monitor.h"
#include "checkpoint_qmp.h"

/*
 * fdset ids: libvirt counts its own up from the smallest and keeps them in 32 bits; far
 * above those of any guest, and still fitting, nothing meets.
 */
#define FDSET_BASE 0x40000000u
#define FDSET_RANGE 0x20000000

/** How long a block pull may take before what needs the nodes is refused. */
#define STREAM_WAIT_MS 5000
#define STREAM_STEP_MS 20

/** What the fdsets of ours carry, so that settling knows them. */
#define FDSET_OPAQUE "virtcheckpoint"

struct virCheckpointMonitor {
    virCheckpointMonitorOps ops;
    gpointer peer;
    gchar *name;
    gboolean answered;
};

virCheckpointMonitor *
virCheckpointMonitorNew(const virCheckpointMonitorOps *ops,
                        gpointer peer,
                        const gchar *name)
{
    virCheckpointMonitor *monitor = g_new0(virCheckpointMonitor, 1);

    monitor->ops = *ops;
    monitor->peer = peer;
    monitor->name = g_strdup(name);
    return monitor;
}

virCheckpointMonitor *
virCheckpointMonitorBorrow(const virCheckpointMonitor *monitor)
{
    virCheckpointMonitor *borrowed =
        virCheckpointMonitorNew(&monitor->ops, monitor->peer, monitor->name);

    borrowed->ops.free = NULL;
    return borrowed;
}

void
virCheckpointMonitorFree(virCheckpointMonitor *monitor)
{
    if (!monitor)
        return;
    if (monitor->ops.free)
        monitor->ops.free(monitor->peer);
    g_free(monitor->name);
    g_free(monitor);
}

gboolean
virCheckpointMonitorAnswered(const virCheckpointMonitor *monitor)
{
    return monitor->answered;
}

gboolean
virCheckpointMonitorHasFds(virCheckpointMonitor *monitor)
{
    return monitor->ops.runWithFd != NULL;
}

/* The "return" member of a reply, or QEMU's refusal as an error. */
static virCheckpointJson *
virCheckpointMonitorUnwrap(virCheckpointMonitor *monitor,
                           const gchar *command,
                           const gchar *text,
                           GError **error)
{
    g_autoptr(virCheckpointJson) reply = virCheckpointJsonParse(text, -1, error);
    const virCheckpointJson *value;

    if (!reply) {
        g_prefix_error(error, "%s: ", command);
        return NULL;
    }
    if ((value = virCheckpointJsonGet(reply, "return"))) {
        monitor->answered = TRUE;
        return virCheckpointJsonCopy(value);
    }
    if ((value = virCheckpointJsonGet(reply, "error"))) {
        const gchar *desc = virCheckpointJsonGetString(value, "desc");

        monitor->answered = TRUE;
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED, "%s: %s",
                    command, desc ? desc : "refused without a reason");
        return NULL;
    }
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                "%s: the reply has neither return nor error", command);
    return NULL;
}

/* Every command that changes something stands between two fault points.  A failure at
 * the second one is a reply that got lost. */
static gboolean
virCheckpointMonitorPoint(const gchar *command, const gchar *when, GError **error)
{
    g_autofree gchar *name = NULL;

    if (strstr(command, "query-"))
        return TRUE;
    name = g_strdup_printf("qmp/%s/%s", command, when);
    return virCheckpointFaultPoint(name, error);
}

static virCheckpointJson *
virCheckpointMonitorSend(virCheckpointMonitor *monitor,
                         const gchar *command,
                         virCheckpointJson *arguments,
                         int fd,
                         GError **error)
{
    g_autoptr(virCheckpointJson) message = NULL;
    g_autofree gchar *text = NULL;
    g_autofree gchar *reply = NULL;

    monitor->answered = FALSE;
    message =
        virCheckpointJsonBuild("s:execute", command, "a:arguments", arguments, NULL);
    if (!virCheckpointQmpCheck(command, virCheckpointJsonGet(message, "arguments"),
                               error)) {
        monitor->answered = TRUE; /* QEMU never heard of it */
        return NULL;
    }
    if (!virCheckpointMonitorPoint(command, "before", error))
        return NULL;
    text = virCheckpointJsonFormat(message);
    if (fd < 0)
        reply = monitor->ops.run(monitor->peer, text, error);
    else
        reply = monitor->ops.runWithFd(monitor->peer, text, fd, error);
    virCheckpointLogQmp(monitor->name, text, reply);
    if (!reply) {
        g_prefix_error(error, "%s: ", command);
        return NULL;
    }
    if (!virCheckpointMonitorPoint(command, "after", error))
        return NULL;
    return virCheckpointMonitorUnwrap(monitor, command, reply, error);
}

virCheckpointJson *
virCheckpointMonitorRun(virCheckpointMonitor *monitor,
                        const gchar *command,
                        virCheckpointJson *arguments,
                        GError **error)
{
    return virCheckpointMonitorSend(monitor, command, arguments, -1, error);
}

gboolean
virCheckpointMonitorDo(virCheckpointMonitor *monitor,
                       const gchar *command,
                       virCheckpointJson *arguments,
                       GError **error)
{
    g_autoptr(virCheckpointJson) reply =
        virCheckpointMonitorRun(monitor, command, arguments, error);

    return reply != NULL;
}

gboolean
virCheckpointMonitorAddFd(virCheckpointMonitor *monitor,
                          int fd,
                          guint64 *set,
                          GError **error)
{
    g_autoptr(virCheckpointJson) reply = NULL;
    guint64 id = FDSET_BASE + (guint64)g_random_int_range(0, FDSET_RANGE);

    if (!virCheckpointMonitorHasFds(monitor)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_UNSUPPORTED,
                    "monitor '%s' takes no descriptors", monitor->name);
        return FALSE;
    }
    *set = id;
    reply = virCheckpointMonitorSend(
        monitor, "add-fd",
        virCheckpointJsonBuild("u:fdset-id", id, "s:opaque", FDSET_OPAQUE, NULL), fd,
        error);
    return reply != NULL;
}

gboolean
virCheckpointMonitorRemoveFd(virCheckpointMonitor *monitor, guint64 set, GError **error)
{
    g_autoptr(virCheckpointJson) reply = NULL;
    g_autoptr(GError) refused = NULL;

    reply = virCheckpointMonitorRun(monitor, "remove-fd",
                                    virCheckpointJsonBuild("u:fdset-id", set, NULL),
                                    &refused);
    if (reply)
        return TRUE;
    if (virCheckpointMonitorAnswered(monitor) && strstr(refused->message, "not found"))
        return TRUE;
    g_propagate_error(error, g_steal_pointer(&refused));
    return FALSE;
}

/* TRUE if a node's file is /dev/fdset/@id. */
static gboolean
virCheckpointMonitorFdsetUsed(const virCheckpointJson *nodes, guint64 id)
{
    g_autofree gchar *path = g_strdup_printf("/dev/fdset/%" G_GUINT64_FORMAT, id);
    gsize i;

    for (i = 0; i < virCheckpointJsonLength(nodes); i++) {
        const gchar *file =
            virCheckpointJsonGetString(virCheckpointJsonIndex(nodes, i), "file");

        if (g_strcmp0(file, path) == 0)
            return TRUE;
    }
    return FALSE;
}

static gboolean
virCheckpointMonitorFdsetIsOurs(const virCheckpointJson *set)
{
    const virCheckpointJson *fds = virCheckpointJsonGet(set, "fds");
    gsize i;

    for (i = 0; i < virCheckpointJsonLength(fds); i++) {
        const gchar *opaque =
            virCheckpointJsonGetString(virCheckpointJsonIndex(fds, i), "opaque");

        if (g_strcmp0(opaque, FDSET_OPAQUE) == 0)
            return TRUE;
    }
    return FALSE;
}

/* A job beside which QEMU dies of the question for its nodes: a block pull until it is
 * dismissed, whose filter stays without a child once the job is concluded, or the
 * creation of an image while it runs, whose node is shown before it was read.  NULL if
 * there is none; or if that cannot be known, with @error. */
static gchar *
virCheckpointMonitorDescribeChange(virCheckpointMonitor *monitor, GError **error)
{
    g_autoptr(virCheckpointJson) jobs =
        virCheckpointMonitorRun(monitor, "query-jobs", NULL, error);
    gsize i;

    for (i = 0; i < virCheckpointJsonLength(jobs); i++) {
        const virCheckpointJson *job = virCheckpointJsonIndex(jobs, i);
        const gchar *type = virCheckpointJsonGetString(job, "type");
        const gchar *id = virCheckpointJsonGetString(job, "id");

        if (g_strcmp0(type, "stream") == 0)
            return g_strdup_printf("block pull '%s'", id ? id : "");
        if (g_strcmp0(type, "create") == 0 &&
            g_strcmp0(virCheckpointJsonGetString(job, "status"), "concluded") != 0)
            return g_strdup_printf("creation of an image '%s'", id ? id : "");
    }
    return NULL;
}

/* Waits a little for what changes its nodes. */
static gboolean
virCheckpointMonitorAwaitNodes(virCheckpointMonitor *monitor, GError **error)
{
    gint64 until = g_get_monotonic_time() + STREAM_WAIT_MS * 1000;

    for (;;) {
        g_autoptr(GError) failed = NULL;
        g_autofree gchar *change = virCheckpointMonitorDescribeChange(monitor, &failed);

        if (failed) {
            g_propagate_error(error, g_steal_pointer(&failed));
            return FALSE;
        }
        if (!change)
            return TRUE;
        if (g_get_monotonic_time() > until) {
            g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                        "%s of domain '%s' must end first", change, monitor->name);
            return FALSE;
        }
        g_usleep(STREAM_STEP_MS * 1000);
    }
}

virCheckpointJson *
virCheckpointMonitorQueryNodes(virCheckpointMonitor *monitor, GError **error)
{
    /* A storage daemon runs no jobs but ours. */
    if (monitor->ops.runWithFd && !virCheckpointMonitorAwaitNodes(monitor, error))
        return NULL;
    return virCheckpointMonitorRun(monitor, "query-named-block-nodes",
                                   virCheckpointJsonBuild("b:flat", TRUE, NULL), error);
}

gboolean
virCheckpointMonitorSweepFds(virCheckpointMonitor *monitor, GError **error)
{
    g_autoptr(virCheckpointJson) sets = NULL;
    g_autoptr(virCheckpointJson) nodes = NULL;
    gsize i;

    if (!virCheckpointMonitorHasFds(monitor))
        return TRUE;
    if (!(sets = virCheckpointMonitorRun(monitor, "query-fdsets", NULL, error)))
        return FALSE;
    for (i = 0; i < virCheckpointJsonLength(sets); i++) {
        const virCheckpointJson *set = virCheckpointJsonIndex(sets, i);
        guint64 id;

        if (!virCheckpointMonitorFdsetIsOurs(set) ||
            !virCheckpointJsonGetUint64(set, "fdset-id", &id))
            continue;
        if (!nodes && !(nodes = virCheckpointMonitorQueryNodes(monitor, error)))
            return FALSE;
        if (!virCheckpointMonitorFdsetUsed(nodes, id) &&
            !virCheckpointMonitorRemoveFd(monitor, id, error))
            return FALSE;
    }
    return TRUE;
}

static gchar *
virCheckpointMonitorDomainRun(gpointer peer, const gchar *command, GError **error)
{
    char *reply = NULL;

    if (virDomainQemuMonitorCommand(peer, command, &reply, 0) < 0) {
        virCheckpointDomainSetError(error);
        return NULL;
    }
    return reply;
}

static gchar *
virCheckpointMonitorDomainRunWithFd(gpointer peer,
                                    const gchar *command,
                                    int fd,
                                    GError **error)
{
    char *reply = NULL;

    if (virDomainQemuMonitorCommandWithFiles(peer, command, 1, &fd, NULL, NULL, &reply,
                                             0) < 0) {
        virCheckpointDomainSetError(error);
        return NULL;
    }
    return reply;
}

static void
virCheckpointMonitorDomainFree(gpointer peer)
{
    virDomainFree(peer);
}

virCheckpointMonitor *
virCheckpointMonitorNewDomain(virDomainPtr domain, GError **error)
{
    static const virCheckpointMonitorOps ops = {
        .run = virCheckpointMonitorDomainRun,
        .runWithFd = virCheckpointMonitorDomainRunWithFd,
        .free = virCheckpointMonitorDomainFree,
    };
    char uuid[VIR_UUID_STRING_BUFLEN];

    if (virDomainGetUUIDString(domain, uuid) < 0 || virDomainRef(domain) < 0) {
        virCheckpointDomainSetError(error);
        return NULL;
    }
    return virCheckpointMonitorNew(&ops, domain, uuid);
}
