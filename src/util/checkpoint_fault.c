/*
 * checkpoint_fault.c: named points between side effects, for tests
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A fault point stands between two side effects of an operation.  Tests name points in
 * the environment and so stop an operation exactly there, by an error, by the death of
 * the process, or for as long as they want to look.  With "*@N" a test sweeps: N = 1,
 * 2, 3 ... until the operation completes.
 *
 * The environment is read at each hit, because tests change it between two calls;
 * counts begin anew whenever the variable's value changes.  A build without fault
 * points (meson -Dfaults=false) has empty functions here.
 */

#include "config.h"

#include "checkpoint_fault.h"

#include "checkpoint_error.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#ifdef VIR_CHECKPOINT_FAULTS

#define VIR_CHECKPOINT_FAULT_HOLD_USEC (10 * 1000)

static GMutex virCheckpointFaultLock; /* guards the two below; nothing is taken in it */
static gchar *virCheckpointFaultSpec;
static GHashTable *virCheckpointFaultHits; /* entry's text -> number of hits so far */

static void
virCheckpointFaultLog(const gchar *name)
{
    const gchar *path = g_getenv("VIRT_CHECKPOINT_FAULTS_LOG");
    g_autofree gchar *line = NULL;
    int fd = -1;

    if (!path)
        return;
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    line = g_strconcat(name, "\n", NULL);
    if (write(fd, line, strlen(line)) < 0)
        g_debug("fault log: %s", g_strerror(errno));
    close(fd);
}

/* Counts a hit of @entry and says whether it is the one that the entry asks for. */
static gboolean
virCheckpointFaultCount(const gchar *entry, guint64 wanted)
{
    guint hits = 0;

    if (wanted == 0)
        return TRUE;
    hits = GPOINTER_TO_UINT(g_hash_table_lookup(virCheckpointFaultHits, entry)) + 1;
    g_hash_table_insert(virCheckpointFaultHits, g_strdup(entry),
                        GUINT_TO_POINTER(hits));
    return hits == wanted;
}

/* Returns: (transfer full) (nullable): the mode to act on at point @name. */
static gchar *
virCheckpointFaultMatch(const gchar *spec, const gchar *name)
{
    g_auto(GStrv) entries = g_strsplit(spec, ",", -1);
    g_autofree gchar *mode = NULL;
    gsize i;

    if (g_strcmp0(virCheckpointFaultSpec, spec) != 0) {
        g_free(virCheckpointFaultSpec);
        virCheckpointFaultSpec = g_strdup(spec);
        g_clear_pointer(&virCheckpointFaultHits, g_hash_table_unref);
        virCheckpointFaultHits =
            g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    }
    for (i = 0; entries[i]; i++) {
        g_autofree gchar *point = g_strdup(entries[i]);
        gchar *eq = strchr(point, '=');
        gchar *at = NULL;
        guint64 wanted = 0;

        if (!eq)
            continue;
        *eq = '\0';
        at = strrchr(point, '@');
        if (at) {
            *at = '\0';
            wanted = g_ascii_strtoull(at + 1, NULL, 10);
        }
        if (!g_str_equal(point, "*") && !g_str_equal(point, name))
            continue;
        /* Every entry counts, also when an earlier one acts. */
        if (virCheckpointFaultCount(entries[i], wanted) && !mode)
            mode = g_strdup(eq + 1);
    }
    return g_steal_pointer(&mode);
}

gboolean
virCheckpointFaultPoint(const gchar *name, GError **error)
{
    const gchar *spec = g_getenv("VIRT_CHECKPOINT_FAULTS");
    g_autofree gchar *mode = NULL;

    g_assert(name);

    virCheckpointFaultLog(name);
    if (!spec || !*spec)
        return TRUE;

    g_mutex_lock(&virCheckpointFaultLock);
    mode = virCheckpointFaultMatch(spec, name);
    g_mutex_unlock(&virCheckpointFaultLock);

    if (g_strcmp0(mode, "fail") == 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "fault point '%s'", name);
        return FALSE;
    }
    if (g_strcmp0(mode, "exit") == 0) {
        kill(getpid(), SIGKILL);
        _exit(137);
    }
    if (mode && g_str_has_prefix(mode, "hold:")) {
        while (access(mode + strlen("hold:"), F_OK) != 0)
            g_usleep(VIR_CHECKPOINT_FAULT_HOLD_USEC);
    }
    return TRUE;
}

#else /* !VIR_CHECKPOINT_FAULTS */

gboolean
virCheckpointFaultPoint(const gchar *name, GError **error)
{
    return TRUE;
}

#endif
