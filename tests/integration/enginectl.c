/*
 * enginectl.c: the engine alone, driven by lines of text
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * enginectl URI STATE-DIR: reads one command a line and answers each with lines that
 * end in one beginning with "ok" or "error CODE ".  For looking at the engine without a
 * gateway in between.  Commands (UUID is the domain's):
 *   create UUID FLAGS XML | delete UUID FLAGS NAME | xml UUID FLAGS NAME | list UUID
 *   settle UUID | drop UUID | busy
 */

#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint_engine.h"
#include "checkpoint_error.h"
#include "checkpoint_log.h"

typedef struct Control {
    virCheckpointEngine *engine;
    GMainLoop *loop;
} Control;

static gboolean
cmdCreate(virCheckpointEngine *engine, gchar **words, GError **error)
{
    g_autofree gchar *name = NULL;

    if (!virCheckpointEngineCreate(engine, words[1], words[3],
                                   (guint)strtoul(words[2], NULL, 0), &name, error))
        return FALSE;
    puts(name);
    return TRUE;
}

static gboolean
cmdXml(virCheckpointEngine *engine, gchar **words, GError **error)
{
    g_autofree gchar *xml = NULL;

    if (!virCheckpointEngineGetXml(engine, words[1], words[3],
                                   (guint)strtoul(words[2], NULL, 0), &xml, error))
        return FALSE;
    fputs(xml, stdout);
    return TRUE;
}

static gboolean
cmdList(virCheckpointEngine *engine, gchar **words, GError **error)
{
    g_autoptr(GPtrArray) entries = virCheckpointEngineList(engine, words[1], error);
    guint i;

    for (i = 0; entries && i < entries->len; i++) {
        const virCheckpointEngineEntry *entry = g_ptr_array_index(entries, i);

        printf("%s %s\n", entry->name, entry->parent ? entry->parent : "-");
    }
    return entries != NULL;
}

static gboolean
cmdRun(virCheckpointEngine *engine, gchar **words, GError **error)
{
    guint count = g_strv_length(words);

    if (count == 4 && g_str_equal(words[0], "create"))
        return cmdCreate(engine, words, error);
    if (count == 4 && g_str_equal(words[0], "delete"))
        return virCheckpointEngineDelete(engine, words[1], words[3],
                                         (guint)strtoul(words[2], NULL, 0), error);
    if (count == 4 && g_str_equal(words[0], "xml"))
        return cmdXml(engine, words, error);
    if (count == 2 && g_str_equal(words[0], "list"))
        return cmdList(engine, words, error);
    if (count == 2 && g_str_equal(words[0], "settle"))
        return virCheckpointEngineSettle(engine, words[1], error);
    if (count == 2 && g_str_equal(words[0], "drop"))
        return virCheckpointEngineDrop(engine, words[1], error);
    if (count == 1 && g_str_equal(words[0], "busy")) {
        puts(virCheckpointEngineIsBusy(engine) ? "yes" : "no");
        return TRUE;
    }
    g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG, "what?");
    return FALSE;
}

static gpointer
cmdThread(gpointer data)
{
    Control *control = data;
    char *line = NULL;
    size_t size = 0;

    while (getline(&line, &size, stdin) > 0) {
        g_auto(GStrv) words = g_strsplit(g_strchomp(line), " ", 4);
        g_autoptr(GError) error = NULL;

        if (cmdRun(control->engine, words, &error)) {
            puts("ok");
        } else {
            g_autofree gchar *message = virCheckpointErrorMessage(error);

            printf("error %d %s\n", virCheckpointErrorCode(error), message);
        }
        fflush(stdout);
    }
    free(line);
    g_main_loop_quit(control->loop);
    return NULL;
}

int
main(int argc, char **argv)
{
    virCheckpointEngineConfig config = {0};
    g_autoptr(GError) error = NULL;
    Control control = {0};
    GThread *thread;

    if (argc != 3) {
        fprintf(stderr, "usage: enginectl URI STATE-DIR\n");
        return 2;
    }
    virCheckpointLogInit(FALSE);
    config.uri = argv[1];
    config.stateDir = argv[2];
    if (virEventRegisterDefaultImpl() < 0 ||
        !(control.engine = virCheckpointEngineNew(&config, &error))) {
        fprintf(stderr, "enginectl: %s\n", error ? error->message : "no event loop");
        return 1;
    }
    control.loop = g_main_loop_new(NULL, FALSE);
    thread = g_thread_new("commands", cmdThread, &control);
    g_main_loop_run(control.loop);
    g_thread_join(thread);
    virCheckpointEngineFree(control.engine);
    g_main_loop_unref(control.loop);
    return 0;
}
