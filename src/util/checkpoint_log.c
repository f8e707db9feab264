/*
 * checkpoint_log.c: what an admin reads
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One line a message on stderr, which systemd's journal or the parent process takes.
 * Messages may quote names that users chose, so control characters are escaped: a line
 * is always one message.
 *
 * The monitor log is a switch of its own.  Each line there is written with a single
 * write(2) in append mode, so that several processes can share the file; tests read
 * from it which commands were sent, in which order.
 */

#include "config.h"

#include "checkpoint_log.h"

#include "checkpoint_json.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static GLogLevelFlags virCheckpointLogLevels; /* set once, before threads start */

static const gchar *
virCheckpointLogLevelName(GLogLevelFlags level)
{
    if (level & (G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL))
        return "error";
    if (level & G_LOG_LEVEL_WARNING)
        return "warning";
    if (level & (G_LOG_LEVEL_MESSAGE | G_LOG_LEVEL_INFO))
        return "info";
    return "debug";
}

static void
virCheckpointLogEscape(GString *line, const gchar *text, gssize length)
{
    gsize n = length < 0 ? strlen(text) : (gsize)length;
    gsize i;

    for (i = 0; i < n; i++) {
        guchar c = (guchar)text[i];

        if (c == '\n')
            g_string_append(line, "\\n");
        else if (c < 0x20 || c == 0x7f)
            g_string_append_printf(line, "\\x%02x", c);
        else
            g_string_append_c(line, (gchar)c);
    }
}

static GLogWriterOutput
virCheckpointLogWriter(GLogLevelFlags level,
                       const GLogField *fields,
                       gsize nFields,
                       gpointer opaque)
{
    g_autoptr(GString) line = g_string_new(NULL);
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autofree gchar *stamp = g_date_time_format(now, "%Y-%m-%d %H:%M:%S");
    gsize i;

    if (!(level & virCheckpointLogLevels))
        return G_LOG_WRITER_HANDLED;

    g_string_append_printf(line, "%s.%03d+0000: %s: ", stamp,
                           g_date_time_get_microsecond(now) / 1000,
                           virCheckpointLogLevelName(level));
    for (i = 0; i < nFields; i++) {
        if (g_str_equal(fields[i].key, "MESSAGE"))
            virCheckpointLogEscape(line, fields[i].value, fields[i].length);
    }
    g_string_append_c(line, '\n');
    if (write(STDERR_FILENO, line->str, line->len) < 0)
        return G_LOG_WRITER_UNHANDLED;
    return G_LOG_WRITER_HANDLED;
}

void
virCheckpointLogInit(gboolean verbose)
{
    static gsize once = 0;
    const gchar *wanted = g_getenv("VIRT_CHECKPOINT_LOG");
    GLogLevelFlags levels = G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL |
                            G_LOG_LEVEL_WARNING | G_LOG_FLAG_FATAL;
    const GLogLevelFlags info = G_LOG_LEVEL_MESSAGE | G_LOG_LEVEL_INFO;

    if (g_strcmp0(wanted, "debug") == 0)
        levels |= info | G_LOG_LEVEL_DEBUG;
    else if (g_strcmp0(wanted, "info") == 0)
        levels |= info;
    else if (g_strcmp0(wanted, "warning") != 0 && verbose)
        levels |= info | G_LOG_LEVEL_DEBUG;
    virCheckpointLogLevels = levels;

    if (g_once_init_enter(&once)) {
        g_log_set_writer_func(virCheckpointLogWriter, NULL, NULL);
        g_once_init_leave(&once, 1);
    }
}

/* @text as a value inside a line: itself when it is JSON, else a string. */
static virCheckpointJson *
virCheckpointLogValue(const gchar *text)
{
    virCheckpointJson *value = NULL;

    if (!text)
        return NULL;
    value = virCheckpointJsonParse(text, -1, NULL);
    return value ? value : virCheckpointJsonNewString(text);
}

void
virCheckpointLogQmp(const gchar *peer, const gchar *sent, const gchar *reply)
{
    const gchar *path = g_getenv("VIRT_CHECKPOINT_LOG_QMP");
    g_autoptr(virCheckpointJson) object = NULL;
    g_autofree gchar *text = NULL;
    g_autofree gchar *line = NULL;
    int fd = -1;

    if (!path || !*path)
        return;
    object =
        virCheckpointJsonBuild("s:domain", peer, "a:sent", virCheckpointLogValue(sent),
                               "a:reply", virCheckpointLogValue(reply), NULL);
    text = virCheckpointJsonFormat(object);
    line = g_strconcat(text, "\n", NULL);

    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, line, strlen(line)) < 0)
        g_debug("monitor log '%s': %s", path, g_strerror(errno));
    if (fd >= 0)
        close(fd);
}
