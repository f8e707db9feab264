/*
 * virsh_uri.c: which connection, and its way through the gateway
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * libvirt's client library takes the socket of a connection from the URI's "socket"
 * parameter; that is all a client of ours needs.  Over ssh the parameter also makes it
 * use nc there instead of virt-ssh-helper (9.0.0), which knows libvirt's sockets only.
 *
 * URIs are edited as text: what else a user put into one stays as it was written.
 */

#include "config.h"

#include "virsh_uri.h"

#include <string.h>

#define VIRSH_SOCKET_NAME "/libvirt/virtcheckpointd-sock"

/* The text of "key = value" in libvirt.conf up to the next key, or NULL.  Only lines
 * that begin with the key count; comments do not. */
static const gchar *
virCheckpointVirshConfigFind(const gchar *config, const gchar *key)
{
    const gchar *line;

    for (line = config; line && *line; line = strchr(line, '\n')) {
        line += strspn(line, " \t\r\n");
        if (g_str_has_prefix(line, key)) {
            const gchar *rest = line + strlen(key);

            rest += strspn(rest, " \t");
            if (*rest == '=')
                return rest + 1;
        }
    }
    return NULL;
}

/* The next quoted string at *@text, past blanks, commas and comments; NULL at the end
 * of the value. */
static gchar *
virCheckpointVirshConfigString(const gchar **text)
{
    const gchar *p = *text;
    const gchar *end;
    gchar *value;

    for (;;) {
        p += strspn(p, " \t\r\n,[");
        if (*p != '#')
            break;
        p += strcspn(p, "\n");
    }
    if ((*p != '"' && *p != '\'') || !(end = strchr(p + 1, *p)))
        return NULL;
    value = g_strndup(p + 1, (gsize)(end - p - 1));
    *text = end + 1;
    return value;
}

static gchar *
virCheckpointVirshConfigAlias(const gchar *config, const gchar *name)
{
    const gchar *value = virCheckpointVirshConfigFind(config, "uri_aliases");
    gsize length = strlen(name);
    gchar *entry;

    while (value && (entry = virCheckpointVirshConfigString(&value))) {
        g_autofree gchar *alias = entry;

        if (g_str_has_prefix(alias, name) && alias[length] == '=')
            return g_strdup(alias + length + 1);
    }
    return NULL;
}

static gchar *
virCheckpointVirshUriUnresolved(const gchar *given,
                                const gchar *virshEnv,
                                const gchar *libvirtEnv,
                                const gchar *config,
                                gboolean root)
{
    const gchar *value;
    gchar *uri;

    if (!given)
        given = virshEnv;
    if (given && *given)
        return g_strdup(given);
    if (libvirtEnv && *libvirtEnv)
        return g_strdup(libvirtEnv);
    value = virCheckpointVirshConfigFind(config, "uri_default");
    if (value && (uri = virCheckpointVirshConfigString(&value)))
        return uri;
    return g_strdup(root ? "qemu:///system" : "qemu:///session");
}

gchar *
virCheckpointVirshUriDefault(const gchar *given,
                             const gchar *virshEnv,
                             const gchar *libvirtEnv,
                             const gchar *config,
                             gboolean root)
{
    g_autofree gchar *uri = NULL;
    gchar *resolved;

    uri = virCheckpointVirshUriUnresolved(given, virshEnv, libvirtEnv, config, root);
    if ((resolved = virCheckpointVirshConfigAlias(config, uri)))
        return resolved;
    return g_steal_pointer(&uri);
}

/* Whether the query @query (up to its end or '#') has @key; @value NULL: any value. */
static gboolean
virCheckpointVirshUriHas(const gchar *query, const gchar *key, const gchar *value)
{
    g_auto(GStrv) pairs = g_strsplit_set(query, "&;", -1);
    gsize i;

    for (i = 0; pairs[i]; i++) {
        gsize length = strcspn(pairs[i], "=");

        if (length != strlen(key) || g_ascii_strncasecmp(pairs[i], key, length) != 0)
            continue;
        if (!value || (pairs[i][length] && g_str_equal(pairs[i] + length + 1, value)))
            return TRUE;
    }
    return FALSE;
}

/* @uri with socket=@path added to its query, in front of a fragment. */
static gchar *
virCheckpointVirshUriAdd(const gchar *uri, const gchar *path)
{
    g_autofree gchar *escaped = g_uri_escape_string(path, "/", FALSE);
    gsize length = strcspn(uri, "#");
    gsize query = strcspn(uri, "?#");
    const gchar *join = "?";

    if (uri[query] == '?')
        join = query + 1 == length ? "" : "&";
    return g_strdup_printf("%.*s%ssocket=%s%s", (int)length, uri, join, escaped,
                           uri + length);
}

/* Scheme and place of @uri, its query taken away. */
static virCheckpointVirshRouteKind
virCheckpointVirshUriKind(const gchar *place, gboolean *session)
{
    static const gchar *const local[] = {"qemu://", "qemu+unix://",
                                         "qemu:", "qemu+unix:"};
    static const gchar *const ssh[] = {"qemu+ssh://", "qemu+libssh://",
                                       "qemu+libssh2://"};
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(local); i++) {
        if (!g_str_has_prefix(place, local[i]))
            continue;
        *session = g_str_equal(place + strlen(local[i]), "/session");
        if (*session || g_str_equal(place + strlen(local[i]), "/system"))
            return VIR_CHECKPOINT_VIRSH_ROUTE_LOCAL;
    }
    for (i = 0; i < G_N_ELEMENTS(ssh); i++) {
        const gchar *path;

        if (!g_str_has_prefix(place, ssh[i]))
            continue;
        path = strchr(place + strlen(ssh[i]), '/');
        if (path && g_str_equal(path, "/system"))
            return VIR_CHECKPOINT_VIRSH_ROUTE_SSH;
    }
    return VIR_CHECKPOINT_VIRSH_ROUTE_NONE;
}

static gchar *
virCheckpointVirshRouteSocket(const virCheckpointVirshHost *host, gboolean session)
{
    if (host->socketPath && *host->socketPath)
        return g_strdup(host->socketPath);
    /* libvirt takes root's session for the system connection. */
    if (session && !host->root)
        return g_strconcat(host->runtimeDir, VIRSH_SOCKET_NAME, NULL);
    return g_strdup(VIR_CHECKPOINT_RUNSTATEDIR VIRSH_SOCKET_NAME);
}

void
virCheckpointVirshRouteMove(virCheckpointVirshRoute *route, const gchar *socketPath)
{
    gchar *copy = g_strdup(socketPath);

    g_free(route->socketPath);
    g_free(route->answers);
    g_free(route->uri);
    route->socketPath = copy;
    route->answers = g_strconcat(copy, route->readonly ? "-ro" : "", NULL);
    route->uri = virCheckpointVirshUriAdd(route->given, route->answers);
}

virCheckpointVirshRoute *
virCheckpointVirshRouteNew(const gchar *uri, const virCheckpointVirshHost *host)
{
    virCheckpointVirshRoute *route = g_new0(virCheckpointVirshRoute, 1);
    gsize placeLength = strcspn(uri, "?#");
    g_autofree gchar *place = g_strndup(uri, placeLength);
    g_autofree gchar *query = NULL;
    g_autofree gchar *path = NULL;
    gboolean session = FALSE;

    route->given = g_strdup(uri);
    route->readonly = host->readonly;
    route->chosen = host->socketPath && *host->socketPath;
    if (uri[placeLength] == '?')
        query = g_strndup(uri + placeLength + 1, strcspn(uri + placeLength + 1, "#"));
    if (!query || !(virCheckpointVirshUriHas(query, "socket", NULL) ||
                    virCheckpointVirshUriHas(query, "proxy", "native")))
        route->kind = virCheckpointVirshUriKind(place, &session);

    switch (route->kind) {
    case VIR_CHECKPOINT_VIRSH_ROUTE_LOCAL:
        path = virCheckpointVirshRouteSocket(host, session);
        virCheckpointVirshRouteMove(route, path);
        break;
    case VIR_CHECKPOINT_VIRSH_ROUTE_SSH:
        path = g_strconcat(VIR_CHECKPOINT_RUNSTATEDIR VIRSH_SOCKET_NAME,
                           host->readonly ? "-ro" : "", NULL);
        route->uri = virCheckpointVirshUriAdd(uri, path);
        break;
    case VIR_CHECKPOINT_VIRSH_ROUTE_NONE:
    case VIR_CHECKPOINT_VIRSH_ROUTE_LAST:
        route->uri = g_strdup(uri);
        break;
    }
    return route;
}

void
virCheckpointVirshRouteFree(virCheckpointVirshRoute *route)
{
    if (!route)
        return;
    g_free(route->given);
    g_free(route->uri);
    g_free(route->socketPath);
    g_free(route->answers);
    g_free(route);
}
